// Measuring: latencies, and the phases of a trial.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>

#include "load.h"
#include "load_server.h"

namespace edgewire::bench {

// Counts durations in buckets whose width grows with the value (as HdrHistogram does): exact below 128 ns, and
// 128 buckets for every doubling above it, so a bucket is at most 0.8 % wide and its middle at most 0.4 % wrong.
class Histogram {
 public:
  void add(uint64_t ns) {
    counts_[bucketOf(ns)]++;
    total_++;
  }
  // The duration that the given share of the values (0..1) does not exceed; 0 if there are none.
  double quantileNs(double share) const;

 private:
  static constexpr int kBits = 7;
  static constexpr uint64_t kPerDoubling = 1u << kBits;
  static constexpr size_t kBuckets = (64 - kBits + 1) * kPerDoubling;

  static size_t bucketOf(uint64_t ns) {
    if (ns < kPerDoubling) return ns;
    const int shift = std::bit_width(ns) - 1 - kBits;  // ns >> shift lies in [kPerDoubling, 2 * kPerDoubling)
    return static_cast<size_t>(shift) * kPerDoubling + (ns >> shift);
  }
  static double middleOf(size_t bucket);

  std::array<uint64_t, kBuckets> counts_{};
  uint64_t total_ = 0;
};

// Warm-up, then the measured window. Messages count if they end within the window, whenever they began. So do latencies,
// but for those of an open loop (--rate): they are those of the messages that were to begin within the window, however
// late their end was.
class Trial {
 public:
  explicit Trial(const Options& options);

  void begin();                // the warm-up starts now
  bool running(uint64_t now);  // moves on to the next phase when it is time; false once the window has ended

  // A message that was begun at `startedNs` is complete; `bytes` is what it adds to the report.
  void complete(uint64_t startedNs, uint64_t now, uint64_t bytes) {
    lastProgressNs_ = now;
    if (phase_ == Phase::measuring) {
      messages_++;
      bytes_ += bytes;
    }
    if (openLoop_ ? startedNs >= windowStartNs_ : phase_ == Phase::measuring) latency_->add(now - startedNs);
  }
  // Something came that is not measured; the server lives.
  void progress(uint64_t now) { lastProgressNs_ = now; }
  // Bytes that are reported as they come, not with their message.
  void addBytes(uint64_t bytes, uint64_t now) {
    lastProgressNs_ = now;
    if (phase_ == Phase::measuring) bytes_ += bytes;
  }
  uint64_t messages() const { return messages_; }
  // An open loop has ended, and this message has not been answered. Its latency is at least its age; to leave it out
  // would be kind to a server that is overloaded.
  void miss(uint64_t startedNs, uint64_t now) {
    missed_++;
    if (startedNs >= windowStartNs_) latency_->add(now - startedNs);
  }
  // Call it now and then, also outside the window: a server that has stopped to answer fails the trial.
  void checkProgress(uint64_t now) const;

  // `more`: fields of the mode's own, each with a comma behind it.
  void printJson(const std::string& more = "") const;

 private:
  void printServer() const;

  enum class Phase { opening, warmup, measuring, over };
  static constexpr uint64_t kStallNs = 5'000'000'000;  // far beyond any latency on one machine

  const Options& options_;
  const bool openLoop_;
  ServerProcess server_;
  Phase phase_ = Phase::opening;
  uint64_t phaseEndsNs_ = 0;  // valid in warmup and measuring
  uint64_t lastProgressNs_ = 0;
  uint64_t windowStartNs_ = UINT64_MAX;  // in the future until then
  uint64_t windowNs_ = 0;                // valid when over
  uint64_t messages_ = 0;
  uint64_t bytes_ = 0;
  uint64_t missed_ = 0;  // of an open loop
  std::unique_ptr<Histogram> latency_ = std::make_unique<Histogram>();
};

}  // namespace edgewire::bench
