#include <getopt.h>

#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "load.h"

namespace edgewire::bench {
namespace {

constexpr const char* kUsage =
    "usage: edgewire-load --port N [--host ADDRESS] | --path SOCKET  [options]\n"
    "  --mode M         echo (default), churn, open-close or idle\n"
    "  --connections N  connections, or connecting loops in churn and open-close (64)\n"
    "  --size BYTES     bytes of a message (64)\n"
    "  --depth D        echo: messages in flight per connection (1)\n"
    "  --seconds S      length of the measured window (2)\n"
    "  --warmup S       time before it (0.5)\n"
    "  --server-pid P   process whose CPU time is measured\n"
    "Prints one line of JSON. In mode idle it prints \"ready\" and holds the connections until stdin ends or SIGTERM.\n"
    "Exit status: 0, 1 if the server misbehaved, 2 for bad options.\n";

constexpr int kMaxConnections = 15'000;  // fits into the 28,000 ephemeral ports of a host that is not spread over
constexpr size_t kMaxSize = 16 * 1024 * 1024;
constexpr int kMaxDepth = 1024;
constexpr double kMaxSeconds = 3600;

template <typename Number>
Number parse(const char* name, const char* text, Number least, Number most) {
  Number value{};
  const char* end = text + std::strlen(text);
  const auto result = std::from_chars(text, end, value);
  // Negated comparison: it refuses NaN, too.
  if (result.ec != std::errc() || result.ptr != end || !(value >= least && value <= most)) {
    badOption("--%s takes a number from %s to %s, not '%s'.", name, std::to_string(least).c_str(),
              std::to_string(most).c_str(), text);
  }
  return value;
}

Mode parseMode(std::string_view text) {
  if (text == "echo") return Mode::echo;
  if (text == "churn") return Mode::churn;
  if (text == "open-close") return Mode::openClose;
  if (text == "idle") return Mode::idle;
  badOption("--mode is echo, churn, open-close or idle.");
}

// clang-format off
const option kOptions[] = {
    {"mode", required_argument, nullptr, 'm'},        {"host", required_argument, nullptr, 'h'},
    {"port", required_argument, nullptr, 'p'},        {"path", required_argument, nullptr, 'u'},
    {"connections", required_argument, nullptr, 'c'}, {"size", required_argument, nullptr, 's'},
    {"depth", required_argument, nullptr, 'd'},       {"seconds", required_argument, nullptr, 't'},
    {"warmup", required_argument, nullptr, 'w'},      {"server-pid", required_argument, nullptr, 'i'},
    {"help", no_argument, nullptr, 'H'},              {nullptr, 0, nullptr, 0}};
// clang-format on

void apply(Options& options, int which) {
  switch (which) {
    case 'H': std::fputs(kUsage, stdout); std::exit(0);
    case 'm': options.mode = parseMode(optarg); break;
    case 'h': options.host = optarg; break;
    case 'p': options.port = parse<uint16_t>("port", optarg, 1, 65535); break;
    case 'u': options.path = optarg; break;
    case 'c': options.connections = parse("connections", optarg, 1, kMaxConnections); break;
    case 's': options.size = parse<size_t>("size", optarg, 1, kMaxSize); break;
    case 'd': options.depth = parse("depth", optarg, 1, kMaxDepth); break;
    case 't': options.seconds = parse("seconds", optarg, 0.01, kMaxSeconds); break;
    case 'w': options.warmup = parse("warmup", optarg, 0.0, kMaxSeconds); break;
    case 'i': options.serverPid = parse<pid_t>("server-pid", optarg, 1, 1 << 30); break;
  }
}

Options parseOptions(int argc, char** argv) {
  Options options;
  opterr = 0;  // our own sentences instead of getopt's
  for (int which; (which = getopt_long(argc, argv, ":", kOptions, nullptr)) != -1;) {
    if (which == ':') badOption("%s lacks its value.", argv[optind - 1]);
    if (which == '?') badOption("%s is not an option.", argv[optind - 1]);
    apply(options, which);
  }
  if (optind != argc) badOption("'%s' is not an option.", argv[optind]);
  if ((options.port != 0) == !options.path.empty()) badOption("Give either --port or --path.");
  return options;
}

void complain(const char* format, va_list arguments) {
  std::fputs("edgewire-load: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
}

}  // namespace

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  complain(format, arguments);
  va_end(arguments);
  std::exit(1);
}

void badOption(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  complain(format, arguments);
  va_end(arguments);
  std::exit(2);
}

}  // namespace edgewire::bench

int main(int argc, char** argv) {
  using namespace edgewire::bench;
  const Options options = parseOptions(argc, argv);
  switch (options.mode) {
    case Mode::echo: return runEcho(options);
    case Mode::churn:
    case Mode::openClose: return runChurn(options);
    case Mode::idle: return runIdle(options);
  }
}
