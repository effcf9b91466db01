#include "load_server.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "load.h"

namespace edgewire::bench {
namespace {

// The sum of the numbers behind the given names in a status file of /proc; 0 if the thread has just ended.
uint64_t sumOf(const std::filesystem::path& path, std::initializer_list<const char*> names) {
  std::ifstream file(path);
  uint64_t sum = 0;
  for (std::string line; std::getline(file, line);) {
    for (const char* name : names) {
      if (line.starts_with(name)) sum += std::stoull(line.substr(std::strlen(name)));
    }
  }
  return sum;
}

}  // namespace

// The kernel offers a CPU-time clock for every process. Summing /proc/PID/task/*/schedstat is not the same: it forgets
// threads that have ended, and for a running one it is as old as that core's last scheduler tick, which on a core with
// a single busy thread can be most of a second ago.
ServerProcess::ServerProcess(pid_t pid) : pid_(pid) {
  if (pid_ == 0) return;
  const int problem = clock_getcpuclockid(pid_, &clock_);
  if (problem != 0) badOption("--server-pid %d: %s.", static_cast<int>(pid_), std::strerror(problem));
}

// Reading /proc takes a while: outside of what the CPU clock sees.
void ServerProcess::beginWindow() {
  if (pid_ == 0) return;
  atBegin_ = readSwitches();
  cpuNs_ = readCpuNs();
}

void ServerProcess::endWindow() {
  if (pid_ == 0) return;
  cpuNs_ = readCpuNs() - cpuNs_;
  for (const auto& [thread, switches] : readSwitches()) {
    const auto before = atBegin_.find(thread);
    contextSwitches_ += switches - (before == atBegin_.end() ? 0 : before->second);
  }
  rssBytes_ = readRssBytes();
}

uint64_t ServerProcess::readCpuNs() const {
  timespec used;
  if (clock_gettime(clock_, &used) != 0) fail("the server process %d has gone", static_cast<int>(pid_));
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(used.tv_nsec);
}

ServerProcess::Switches ServerProcess::readSwitches() const {
  Switches switches;
  std::error_code problem;
  const std::filesystem::path folder = "/proc/" + std::to_string(pid_) + "/task";
  for (const auto& entry : std::filesystem::directory_iterator(folder, problem)) {
    const uint64_t count = sumOf(entry.path() / "status", {"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"});
    if (count != 0) switches[std::stoi(entry.path().filename())] = count;
  }
  if (switches.empty()) fail("/proc has no threads of the server process %d", static_cast<int>(pid_));
  return switches;
}

uint64_t ServerProcess::readRssBytes() const {
  constexpr uint64_t kKiB = 1024;
  return sumOf("/proc/" + std::to_string(pid_) + "/status", {"VmRSS:"}) * kKiB;
}

}  // namespace edgewire::bench
