#include <getopt.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "floor.h"

namespace edgewire::bench {
namespace {

struct App {
  std::string_view name;
  void (*serve)(const Config& config);
};
constexpr App kApps[] = {
    {"echo", serveEcho},     {"deadline", serveDeadline}, {"fanout", serveFanout}, {"lines", serveLines},
    {"frames", serveFrames}, {"sink", serveSink},         {"source", serveSource},
};

constexpr long kMaxDeadlineSeconds = 3600;

const App* parseApp(std::string_view name) {
  for (const App& app : kApps) {
    if (app.name == name) return &app;
  }
  usage("--app is one of echo, deadline, fanout, lines, frames, sink, source.");
}

long parseNumber(const char* text, long least, long most, const char* problem) {
  long number = 0;
  const char* end = text + std::strlen(text);
  const auto result = std::from_chars(text, end, number);
  if (result.ec != std::errc() || result.ptr != end || number < least || number > most) usage(problem);
  return number;
}

const App* parse(int argc, char** argv, Config& config) {
  static const option kOptions[] = {{"host", required_argument, nullptr, 'h'},
                                    {"port", required_argument, nullptr, 'p'},
                                    {"path", required_argument, nullptr, 's'},
                                    {"app", required_argument, nullptr, 'a'},
                                    {"deadline-seconds", required_argument, nullptr, 'd'},
                                    {nullptr, 0, nullptr, 0}};
  const App* app = parseApp("echo");
  opterr = 0;  // our own sentence instead of getopt's
  for (int c; (c = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (c) {
      case 'h': config.host = optarg; break;
      case 's': config.path = optarg; break;
      case 'p': config.port = parseNumber(optarg, 0, 65535, "--port takes a number from 0 to 65535."); break;
      case 'a': app = parseApp(optarg); break;
      case 'd':
        config.deadlineSeconds =
            parseNumber(optarg, 1, kMaxDeadlineSeconds, "--deadline-seconds takes a number from 1 to 3600.");
        break;
      default: usage("an option is unknown or lacks its value.");
    }
  }
  if (optind != argc) usage("only options are taken.");
  if ((config.path != nullptr) == (config.port >= 0)) usage("give either --port or --path.");
  return app;
}

}  // namespace

void die(const char* what) {
  std::fprintf(stderr, "edgewire-floor: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

void usage(const char* problem) {
  std::fprintf(stderr,
               "edgewire-floor: %s\n"
               "usage: edgewire-floor --port N [--host ADDRESS] | --path SOCKET  [--app APP] [--deadline-seconds S]\n",
               problem);
  std::exit(2);
}

}  // namespace edgewire::bench

int main(int argc, char** argv) {
  using namespace edgewire::bench;
  Config config;
  const App* app = parse(argc, argv, config);
  app->serve(config);
  return 0;
}
