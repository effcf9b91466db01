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

// The kernel offers a CPU-time clock for every process. Summing /proc/PID/task/*/schedstat is not the same: it forgets
// threads that have ended, and for a running one it is as old as that core's last scheduler tick, which on a core with
// a single busy thread can be most of a second ago.
ServerCpu::ServerCpu(pid_t pid) : pid_(pid) {
  if (pid_ == 0) return;
  const int problem = clock_getcpuclockid(pid_, &clock_);
  if (problem != 0) badOption("--server-pid %d: %s.", static_cast<int>(pid_), std::strerror(problem));
}

uint64_t ServerCpu::readNs() const {
  if (pid_ == 0) return 0;
  timespec used;
  if (clock_gettime(clock_, &used) != 0) fail("the server process %d has gone", static_cast<int>(pid_));
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(used.tv_nsec);
}

Trial::Trial(const Options& options) : options_(options), cpu_(options.serverPid), lastProgressNs_(nowNs()) {}

void Trial::begin() {
  phase_ = Phase::warmup;
  lastProgressNs_ = nowNs();
  phaseEndsNs_ = lastProgressNs_ + static_cast<uint64_t>(options_.warmup * 1e9);
}

bool Trial::running(uint64_t now) {
  checkProgress(now);
  if (phase_ == Phase::warmup && now >= phaseEndsNs_) {
    phase_ = Phase::measuring;
    serverCpuNs_ = cpu_.readNs();
    windowStartNs_ = nowNs();
    phaseEndsNs_ = windowStartNs_ + static_cast<uint64_t>(options_.seconds * 1e9);
  } else if (phase_ == Phase::measuring && now >= phaseEndsNs_) {
    phase_ = Phase::over;
    serverCpuNs_ = cpu_.readNs() - serverCpuNs_;
    windowNs_ = nowNs() - windowStartNs_;
  }
  return phase_ != Phase::over;
}

void Trial::checkProgress(uint64_t now) const {
  // `now` may be older than the last progress: it is read once for a batch of events.
  if (now > lastProgressNs_ && now - lastProgressNs_ > kStallNs) {
    fail("the server has not answered for %d seconds", static_cast<int>(kStallNs / 1'000'000'000));
  }
}

void Trial::printJson() const {
  if (messages_ == 0) fail("not one message was completed in the measured window");
  const double seconds = static_cast<double>(windowNs_) / 1e9;
  const double messages = static_cast<double>(messages_);
  const uint64_t bytes = options_.mode == Mode::openClose ? 0 : messages_ * options_.size;
  std::printf("{\"messages\":%" PRIu64 ",\"seconds\":%.6f,\"messagesPerSecond\":%.1f,\"bytes\":%" PRIu64 ",", messages_,
              seconds, messages / seconds, bytes);
  std::printf("\"p50Us\":%.2f,\"p99Us\":%.2f,\"p999Us\":%.2f,", latency_->quantileNs(0.5) / 1e3,
              latency_->quantileNs(0.99) / 1e3, latency_->quantileNs(0.999) / 1e3);
  if (cpu_.known()) {
    std::printf("\"serverCpuNs\":%" PRIu64 ",\"cpuUsPerMessage\":%.4f,", serverCpuNs_,
                static_cast<double>(serverCpuNs_) / 1e3 / messages);
  } else {
    std::printf("\"serverCpuNs\":null,\"cpuUsPerMessage\":null,");
  }
  // Whatever goes wrong ends the run without this line, so a line never has errors to report.
  std::printf("\"connections\":%d,\"errors\":0}\n", options_.connections);
}

}  // namespace edgewire::bench
