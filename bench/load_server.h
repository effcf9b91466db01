// What the kernel tells about the server's process: CPU time, context switches, memory.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <map>

namespace edgewire::bench {

class ServerProcess {
 public:
  explicit ServerProcess(pid_t pid);  // 0: there is nobody to measure
  bool known() const { return pid_ != 0; }

  // A window: what is used between the two calls is what the counters below tell.
  void beginWindow();
  void endWindow();

  uint64_t cpuNs() const { return cpuNs_; }                      // user and system, all threads
  uint64_t contextSwitches() const { return contextSwitches_; }  // voluntary and not, all threads that live at the end
  uint64_t rssBytes() const { return rssBytes_; }                // resident memory at the window's end

 private:
  using Switches = std::map<pid_t, uint64_t>;  // of each thread

  uint64_t readCpuNs() const;
  Switches readSwitches() const;
  uint64_t readRssBytes() const;

  pid_t pid_;
  clockid_t clock_ = 0;
  Switches atBegin_;
  uint64_t cpuNs_ = 0;  // within the window: the reading at its begin
  uint64_t contextSwitches_ = 0;
  uint64_t rssBytes_ = 0;
};

}  // namespace edgewire::bench
