#include <getopt.h>

#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "load.h"

namespace edgewire::bench {
namespace {

constexpr const char* kUsage =
    "usage: edgewire-load --port N [--host ADDRESS] | --path SOCKET  [options]\n"
    "  --mode M         what is asked of the server (echo):\n"
    "      echo           connections stay open; the bytes come back\n"
    "      lines          the same: \"ECHO payload\\n\" is answered with \"+payload\\n\"\n"
    "      frames         the same: a big-endian length of 4 bytes and as many bytes, and the same back\n"
    "      churn          loops of connect, one message there and back, close\n"
    "      open-close     loops of connect, FIN, the server's FIN\n"
    "      burst          all connect at once, have one message echoed and close together; again and again\n"
    "      fanout         a publisher's message goes to all subscribers (their first byte is S, and so is its answer)\n"
    "      sink           transfers to the server, which answers FIN with the count, 8 bytes big-endian, and closes\n"
    "      source         transfers of as many bytes as 8 bytes ask for, then the server closes; byte i is i modulo "
    "251\n"
    "      idle           one message each, then silence: prints \"ready\", holds until stdin ends or SIGTERM\n"
    "  --connections N  connections; loops in churn and open-close; subscribers in fanout (64; sink and source: 1)\n"
    "  --size BYTES     of a message, of the payload in lines and frames (64); of a transfer (64 MiB)\n"
    "  --depth D        echo, lines, frames: messages in flight per connection (1)\n"
    "  --rate R         echo, lines, frames: R messages a second over all connections, begun at fixed instants "
    "whether\n"
    "                   or not the server has answered; latencies count from these instants (no coordinated omission)\n"
    "  --idle N         echo, lines, frames: N further connections that are silent after their first message\n"
    "  --stalled N      echo, lines, frames: N further connections that send until the server takes no more, and read\n"
    "                   (and check) nothing before the end\n"
    "  --publishers P   fanout: connections that take turns to publish (1)\n"
    "  --seconds S      length of the measured window (2)\n"
    "  --warmup S       time before it (0.5)\n"
    "  --server-pid P   process whose CPU time, context switches and resident memory are measured\n"
    "Prints one line of JSON. A message is what comes back for one message that was sent; in open-close and burst it "
    "is\n"
    "a connection, in fanout a message that all subscribers have, in sink and source 64 KiB that were moved.\n"
    "With --rate, \"missed\" are the messages without an answer a second after the window.\n"
    "Exit status: 0, 1 if the server misbehaved, 2 for bad options.\n";

constexpr int kMaxConnections = 15'000;  // fits into the 28,000 ephemeral ports of a host that is not spread over
constexpr int kMaxPublishers = 64;
constexpr size_t kMaxSize = 16 * 1024 * 1024;
constexpr size_t kMaxLine = 64 * 1024;
constexpr size_t kMaxFrame = 1024 * 1024;
constexpr size_t kMaxTransfer = 1024 * 1024 * 1024;
constexpr int kMaxDepth = 1024;
constexpr uint64_t kMaxRate = 10'000'000;
constexpr double kMaxSeconds = 3600;

constexpr int kDefaultConnections = 64;
constexpr size_t kDefaultSize = 64;
constexpr size_t kDefaultTransfer = 64 * 1024 * 1024;

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

struct NamedMode {
  std::string_view name;
  Mode mode;
  size_t maxSize;
};
constexpr NamedMode kModes[] = {
    {"echo", Mode::echo, kMaxSize},     {"lines", Mode::lines, kMaxLine},   {"frames", Mode::frames, kMaxFrame},
    {"churn", Mode::churn, kMaxSize},   {"burst", Mode::burst, kMaxSize},   {"open-close", Mode::openClose, kMaxSize},
    {"fanout", Mode::fanout, kMaxSize}, {"sink", Mode::sink, kMaxTransfer}, {"source", Mode::source, kMaxTransfer},
    {"idle", Mode::idle, kMaxSize},
};

Mode parseMode(std::string_view text) {
  std::string known;
  for (const auto& [name, mode, maxSize] : kModes) {
    if (text == name) return mode;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  badOption("--mode is one of %s, not '%s'.", known.c_str(), std::string(text).c_str());
}

// clang-format off
const option kOptions[] = {
    {"mode", required_argument, nullptr, 'm'},        {"host", required_argument, nullptr, 'h'},
    {"port", required_argument, nullptr, 'p'},        {"path", required_argument, nullptr, 'u'},
    {"connections", required_argument, nullptr, 'c'}, {"size", required_argument, nullptr, 's'},
    {"depth", required_argument, nullptr, 'd'},       {"seconds", required_argument, nullptr, 't'},
    {"warmup", required_argument, nullptr, 'w'},      {"server-pid", required_argument, nullptr, 'i'},
    {"rate", required_argument, nullptr, 'r'},        {"idle", required_argument, nullptr, 'n'},
    {"stalled", required_argument, nullptr, 'l'},     {"publishers", required_argument, nullptr, 'b'},
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
    case 's': options.size = parse<size_t>("size", optarg, 1, kMaxTransfer); break;
    case 'd': options.depth = parse("depth", optarg, 1, kMaxDepth); break;
    case 't': options.seconds = parse("seconds", optarg, 0.01, kMaxSeconds); break;
    case 'w': options.warmup = parse("warmup", optarg, 0.0, kMaxSeconds); break;
    case 'i': options.serverPid = parse<pid_t>("server-pid", optarg, 1, 1 << 30); break;
    case 'r': options.rate = parse<uint64_t>("rate", optarg, 1, kMaxRate); break;
    case 'n': options.idle = parse("idle", optarg, 0, kMaxConnections); break;
    case 'l': options.stalled = parse("stalled", optarg, 0, kMaxConnections); break;
    case 'b': options.publishers = parse("publishers", optarg, 1, kMaxPublishers); break;
  }
}

void fillIn(Options& options) {
  const bool transfer = options.mode == Mode::sink || options.mode == Mode::source;
  if (options.connections == 0) options.connections = transfer ? 1 : kDefaultConnections;
  if (options.size == 0) options.size = transfer ? kDefaultTransfer : kDefaultSize;
}

// What each option allows is known; this is about what they mean to each other.
void check(const Options& options) {
  if ((options.port != 0) == !options.path.empty()) badOption("Give either --port or --path.");
  for (const auto& [name, mode, maxSize] : kModes) {
    if (options.mode == mode && options.size > maxSize) {
      badOption("--size is at most %zu in mode %s.", maxSize, std::string(name).c_str());
    }
  }
  const bool stays = options.mode == Mode::echo || options.mode == Mode::lines || options.mode == Mode::frames;
  if (!stays && options.rate != 0) badOption("--rate is for the modes echo, lines and frames.");
  if (!stays && options.idle != 0) badOption("--idle is for the modes echo, lines and frames.");
  if (!stays && options.stalled != 0) badOption("--stalled is for the modes echo, lines and frames.");
  if (options.rate != 0 && options.depth != 1) badOption("--rate sets no limit to what is in flight: omit --depth.");
  if (options.mode != Mode::fanout && options.publishers != 1) badOption("--publishers is for the mode fanout.");
  if (options.connections + options.idle + options.stalled + options.publishers - 1 > kMaxConnections) {
    badOption("No more than %d connections in all.", kMaxConnections);
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
  fillIn(options);
  check(options);
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
    case Mode::echo:
    case Mode::lines:
    case Mode::frames: return runEcho(options);
    case Mode::churn:
    case Mode::burst:
    case Mode::openClose: return runChurn(options);
    case Mode::fanout: return runFanout(options);
    case Mode::sink:
    case Mode::source: return runTransfer(options);
    case Mode::idle: return runIdle(options);
  }
}
