#include "load_stats.h"

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "load_net.h"

namespace edgewire::bench {

double Histogram::quantileNs(double share) const {
  if (total_ == 0) return 0;
  const double wanted = share * static_cast<double>(total_);
  uint64_t seen = 0;
  size_t last = 0;
  for (size_t bucket = 0; bucket < kBuckets; bucket++) {
    if (counts_[bucket] == 0) continue;
    seen += counts_[bucket];
    last = bucket;
    if (static_cast<double>(seen) >= wanted) break;
  }
  return middleOf(last);
}

double Histogram::middleOf(size_t bucket) {
  if (bucket < 2 * kPerDoubling) return static_cast<double>(bucket);
  const size_t shift = bucket / kPerDoubling - 1;
  const uint64_t low = (kPerDoubling + bucket % kPerDoubling) << shift;
  return static_cast<double>(low) + static_cast<double>(uint64_t{1} << shift) / 2;
}

Trial::Trial(const Options& options)
    : options_(options), openLoop_(options.rate != 0), server_(options.serverPid), lastProgressNs_(nowNs()) {}

void Trial::begin() {
  phase_ = Phase::warmup;
  lastProgressNs_ = nowNs();
  phaseEndsNs_ = lastProgressNs_ + static_cast<uint64_t>(options_.warmup * 1e9);
}

bool Trial::running(uint64_t now) {
  checkProgress(now);
  if (phase_ == Phase::warmup && now >= phaseEndsNs_) {
    phase_ = Phase::measuring;
    server_.beginWindow();
    windowStartNs_ = nowNs();
    phaseEndsNs_ = windowStartNs_ + static_cast<uint64_t>(options_.seconds * 1e9);
  } else if (phase_ == Phase::measuring && now >= phaseEndsNs_) {
    phase_ = Phase::over;
    windowNs_ = nowNs() - windowStartNs_;
    server_.endWindow();
  }
  return phase_ != Phase::over;
}

void Trial::checkProgress(uint64_t now) const {
  // `now` may be older than the last progress: it is read once for a batch of events.
  if (now > lastProgressNs_ && now - lastProgressNs_ > kStallNs) {
    fail("the server has not answered for %d seconds", static_cast<int>(kStallNs / 1'000'000'000));
  }
}

void Trial::printJson(const std::string& more) const {
  if (messages_ == 0) fail("not one message was completed in the measured window");
  const double seconds = static_cast<double>(windowNs_) / 1e9;
  std::printf("{\"messages\":%" PRIu64 ",\"seconds\":%.6f,\"messagesPerSecond\":%.1f,\"bytes\":%" PRIu64 ",", messages_,
              seconds, static_cast<double>(messages_) / seconds, bytes_);
  std::printf("\"p50Us\":%.2f,\"p99Us\":%.2f,\"p999Us\":%.2f,", latency_->quantileNs(0.5) / 1e3,
              latency_->quantileNs(0.99) / 1e3, latency_->quantileNs(0.999) / 1e3);
  printServer();
  if (openLoop_) std::printf("\"rate\":%" PRIu64 ",\"missed\":%" PRIu64 ",", options_.rate, missed_);
  // Whatever goes wrong ends the run without this line, so a line never has errors to report.
  std::printf("%s\"connections\":%d,\"errors\":0}\n", more.c_str(), options_.connections);
}

void Trial::printServer() const {
  if (!server_.known()) {
    std::printf("\"serverCpuNs\":null,\"cpuUsPerMessage\":null,\"contextSwitches\":null,\"serverRssBytes\":null,");
    return;
  }
  std::printf("\"serverCpuNs\":%" PRIu64 ",\"cpuUsPerMessage\":%.4f,\"contextSwitches\":%" PRIu64
              ",\"serverRssBytes\":%" PRIu64 ",",
              server_.cpuNs(), static_cast<double>(server_.cpuNs()) / 1e3 / static_cast<double>(messages_),
              server_.contextSwitches(), server_.rssBytes());
}

}  // namespace edgewire::bench
