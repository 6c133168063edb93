// SPDX-License-Identifier: Apache-2.0
#include "backends/python/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

extern char** environ;

namespace gristmill {
namespace {

constexpr int kFirstFd = 3;

std::string Describe(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    return "was ended by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
  }
  return "ended with status " + std::to_string(WEXITSTATUS(wait_status));
}

}  // namespace

WorkerProcess::~WorkerProcess() { End(SystemClock(), 0); }

Status WorkerProcess::Start(const std::vector<std::string>& arguments, const std::vector<int>& fds) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  // dup2 onto itself would leave a descriptor to be closed, and onto a later one would lose that: both are avoided by
  // copies far above.
  std::vector<int> copies;
  for (int fd : fds) copies.push_back(fcntl(fd, F_DUPFD_CLOEXEC, kFirstFd + static_cast<int>(fds.size())));
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, 2, 1);
  for (size_t i = 0; i < copies.size(); ++i) {
    posix_spawn_file_actions_adddup2(&actions, copies[i], kFirstFd + static_cast<int>(i));
  }
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> words;
  for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, words[0], &actions, &attributes, words.data(), environ);
  for (int copy : copies) close(copy);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return Unavailable("cannot start " + arguments[0] + ": " + strerror(error));
  MutexLock lock(mu_);
  pid_ = pid;
  return Status::Ok();
}

void WorkerProcess::Kill() {
  MutexLock lock(mu_);
  if (pid_ > 0) kill(-pid_, SIGKILL);
}

std::string WorkerProcess::End(Clock& clock, int64_t grace_ns) {
  const auto has_ended = [this]() {
    MutexLock lock(mu_);
    siginfo_t info{};
    return pid_ <= 0 || waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid != 0;
  };
  const int64_t until_ns = clock.NowNs() + grace_ns;
  while (!has_ended() && clock.NowNs() < until_ns) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  Kill();  // and what it has started
  MutexLock lock(mu_);
  if (pid_ <= 0) return "was not started";
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return Describe(status);
}

}  // namespace gristmill
