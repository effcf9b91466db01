# One file list per part; the sources of a part are named here and nowhere else (no globbing: a forgotten file must
# fail to link, and a stray one must not be compiled).
#
# `node-gyp rebuild` builds the addon only, which is all that the published sources allow. tools/ready.mjs sets
# edgewire_dev=1 to get the bench and test programs as well, and asks make for those it needs.
{
  'variables': {
    'edgewire_dev%': 0,

    # gyp's OS is where the build runs: one for another system says -Dedgewire_poller=kqueue.
    'variables': {
      'conditions': [
        ['OS=="mac"', {'edgewire_poller%': 'kqueue'}, {'edgewire_poller%': 'epoll'}],
      ],
    },
    'edgewire_poller%': '<(edgewire_poller)',

    # native/core: knows neither Node-API nor libuv. sys.cc has what differs between systems besides the poller.
    'system_sources': ['native/core/sys.cc'],
    'core_sources': [
      'native/core/sockaddr.cc',
      'native/core/slab.cc',
      'native/core/timer_wheel.cc',
      'native/core/waiter.cc',
      'native/core/conn_table.cc',
      'native/core/out_queue.cc',
      'native/core/listener.cc',
      'native/core/reactor.cc',
      'native/core/reactor_connect.cc',
      'native/core/reactor_io.cc',
      'native/core/reactor_commands.cc',
    ],
    'conditions': [
      ['edgewire_poller=="kqueue"', {
        'poller_sources': ['native/core/poller_kqueue.cc'],
      }, {
        'poller_sources': ['native/core/poller_epoll.cc'],
      }],
    ],
    'node_sources': [
      'native/node/binding.cc',
      'native/node/driver_prepare.cc',
      'native/node/driver_uv_poll.cc',
      'native/node/driver_waiter.cc',
      'native/node/env.cc',
      'native/node/uv_api.cc',
    ],
    'core_test_sources': [
      'test/native/main.cc',
      'test/native/slab_test.cc',
      'test/native/timer_wheel_test.cc',
      'test/native/waiter_test.cc',
      'test/native/driver_prepare_test.cc',
      'test/native/ring_test.cc',
      'test/native/conn_table_test.cc',
      'test/native/out_queue_test.cc',
      'test/native/poller_test.cc',
      'test/native/sys_test.cc',
      'test/native/reactor_test.cc',
      'test/native/reactor_close_test.cc',
      'test/native/reactor_dial_test.cc',
      'test/native/reactor_open_test.cc',
      'test/native/reactor_limits_test.cc',
    ],
    # Those that see which queue is behind the poller.
    'poller_test_sources': ['test/native/reactor_fault_test.cc'],
    'kqueue_test_sources': [
      'test/native/poller_kqueue_test.cc',
      'test/native/kqueue/facts_test.cc',
    ],
    'load_sources': [
      'bench/load_main.cc',
      'bench/load_echo.cc',
      'bench/load_rate.cc',
      'bench/load_churn.cc',
      'bench/load_fanout.cc',
      'bench/load_transfer.cc',
      'bench/load_idle.cc',
      'bench/load_protocol.cc',
      'bench/load_stats.cc',
      'bench/load_server.cc',
    ],
    'floor_sources': [
      'bench/floor_main.cc',
      'bench/floor_listen.cc',
      'bench/floor_echo.cc',
      'bench/floor_fanout.cc',
      'bench/floor_requests.cc',
      'bench/floor_transfer.cc',
    ],
    'core_cost_sources': [
      'bench/micro/core_cost.cc',
      'bench/micro/memory_kernel.cc',
    ],
  },

  # For every target. node-gyp's own defaults (addon.gypi) make each target a loadable module with the suffix .node,
  # and -O3 comes from Node's common.gypi.
  'target_defaults': {
    'include_dirs': ['native'],
    'cflags!': ['-O3'],
    'cflags': ['-Wall', '-Wextra', '-Werror=return-type', '-fvisibility=hidden', '-fPIC'],
    'cflags_cc!': ['-std=gnu++17', '-std=gnu++14', '-std=gnu++1y'],
    'cflags_cc': ['-std=gnu++20', '-fvisibility-inlines-hidden'],
    'xcode_settings': {
      'CLANG_CXX_LANGUAGE_STANDARD': 'gnu++20',
      'CLANG_CXX_LIBRARY': 'libc++',
      'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
      'MACOSX_DEPLOYMENT_TARGET': '11.0',
      'WARNING_CFLAGS': ['-Wall', '-Wextra', '-Werror=return-type'],
    },
  },

  'targets': [
    {
      'target_name': 'edgewire_core',
      'type': 'static_library',
      'product_prefix': 'lib',
      'product_extension': 'a',
      'sources': ['<@(core_sources)', '<@(system_sources)', '<@(poller_sources)'],
      # Here, because the line above takes it out of `cflags`: for the core it is worth 10 % of the instructions.
      'cflags_cc': ['-O3', '-fno-exceptions', '-fno-rtti'],
    },
    {
      'target_name': 'edgewire',
      'dependencies': ['edgewire_core'],
      'sources': ['<@(node_sources)'],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      'defines': ['NAPI_VERSION=8', 'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS'],
      'cflags': ['-O2'],
      'cflags_cc': ['-fno-exceptions', '-fno-rtti'],
      'conditions': [
        # dlsym and pthread_create, where the C library has them in files of their own (glibc before 2.34).
        ['edgewire_poller=="epoll"', {'libraries': ['-ldl', '-lpthread']}],
      ],
    },
  ],

  'conditions': [
    ['edgewire_dev==1', {
      'variables': {
        'gtest_dir': '<!(node -p "require(\'path\').relative(\'.\', require.resolve(\'@xpack-3rd-party/googletest/package.json\') + \'/../googletest\')")',
        # Both sanitizers in one binary; the first finding ends the run.
        'sanitizers': ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'],
        # A test registers itself from a file of the library that nothing else refers to.
        'whole_archives': ['-Wl,--whole-archive'],
        'whole_archives_end': ['-Wl,--no-whole-archive'],
        'sanitizer_cflags': ['<@(sanitizers)', '-O1', '-g', '-fno-omit-frame-pointer'],
      },
      'targets': [
        {
          # Without sanitizers: the framework is not what is tested, and with them it takes half a minute to compile.
          'target_name': 'edgewire_gtest',
          'type': 'static_library',
          'product_prefix': 'lib',
          'product_extension': 'a',
          'sources': ['<(gtest_dir)/src/gtest-all.cc'],
          'include_dirs': ['<(gtest_dir)', '<(gtest_dir)/include'],
          'cflags': ['-O0', '-Wno-maybe-uninitialized'],
          'cflags_cc!': ['-fno-exceptions', '-fno-rtti'],
          'xcode_settings': {
            'GCC_OPTIMIZATION_LEVEL': '0',
            'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
            'GCC_ENABLE_CPP_RTTI': 'YES',
          },
        },
        {
          # The core once more, with the sanitizers compiled in, and its property tests: all that is the same whichever
          # poller is behind it.
          'target_name': 'edgewire_core_tests',
          'type': 'static_library',
          'product_prefix': 'lib',
          'product_extension': 'a',
          'sources': ['<@(core_sources)', '<@(core_test_sources)'],
          'include_dirs': ['<(gtest_dir)/include'],
          'cflags': ['<@(sanitizer_cflags)'],
          'cflags_cc!': ['-fno-exceptions', '-fno-rtti'],
          'xcode_settings': {
            'OTHER_CFLAGS': ['<@(sanitizer_cflags)'],
            'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
            'GCC_ENABLE_CPP_RTTI': 'YES',
          },
        },
        {
          # The tests with this system's poller.
          'target_name': 'edgewire_core_test',
          'type': 'executable',
          'product_prefix': '',
          'product_extension': '',
          'dependencies': ['edgewire_gtest', 'edgewire_core_tests'],
          'sources': ['<@(system_sources)', '<@(poller_sources)', '<@(poller_test_sources)'],
          'include_dirs': ['<(gtest_dir)/include'],
          'cflags': ['<@(sanitizer_cflags)'],
          'cflags_cc!': ['-fno-exceptions', '-fno-rtti'],
          'ldflags': ['<@(sanitizers)', '<@(whole_archives)'],
          'conditions': [
            ['OS!="mac"', {'libraries': ['<@(whole_archives_end)']}],
            ['edgewire_poller=="kqueue"', {'sources': ['<@(kqueue_test_sources)']}],
          ],
          'xcode_settings': {
            'OTHER_CFLAGS': ['<@(sanitizer_cflags)'],
            'OTHER_LDFLAGS': ['<@(sanitizers)', '-Wl,-all_load'],
            'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
            'GCC_ENABLE_CPP_RTTI': 'YES',
          },
        },
      ],
      'conditions': [
        ['OS=="linux"', {
          'targets': [
            {
              # The same tests with poller_kqueue.cc, on a kqueue of the tests' own: test/native/kqueue.
              'target_name': 'edgewire_core_kqueue_test',
              'type': 'executable',
              'product_prefix': '',
              'product_extension': '',
              'dependencies': ['edgewire_gtest', 'edgewire_core_tests'],
              'sources': [
                '<@(system_sources)',
                'native/core/poller_kqueue.cc',
                'test/native/kqueue/kqueue.cc',
                '<@(poller_test_sources)',
                '<@(kqueue_test_sources)',
              ],
              'include_dirs': ['<(gtest_dir)/include', 'test/native/kqueue'],
              'cflags': ['<@(sanitizer_cflags)'],
              'cflags_cc!': ['-fno-exceptions', '-fno-rtti'],
              'ldflags': ['<@(sanitizers)', '<@(whole_archives)'],
              'libraries': ['<@(whole_archives_end)'],
            },
          ],
        }],
      ],
    }],
    ['edgewire_dev==1 and OS=="linux"', {
      'targets': [
        {
          # The load generator: bench/ drives every server with it.
          'target_name': 'edgewire_load',
          'type': 'executable',
          'product_name': 'edgewire-load',
          'product_prefix': '',
          'product_extension': '',
          'sources': ['<@(load_sources)'],
          'cflags': ['-O2'],
        },
        {
          # The raw epoll echo server that every measurement is divided by.
          'target_name': 'edgewire_floor',
          'type': 'executable',
          'product_name': 'edgewire-floor',
          'product_prefix': '',
          'product_extension': '',
          'sources': ['<@(floor_sources)'],
          'cflags': ['-O2'],
        },
        {
          # The core without JavaScript, under loads whose instructions valgrind counts: bench/micro.
          'target_name': 'edgewire_core_cost',
          'type': 'executable',
          'product_name': 'edgewire-core-cost',
          'product_prefix': '',
          'product_extension': '',
          'dependencies': ['edgewire_core'],
          'sources': ['<@(core_cost_sources)'],
          'cflags': ['-O2'],
        },
      ],
    }],
  ],
}
