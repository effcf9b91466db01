// Requests that have to be parsed: lines ("ECHO payload\n" is answered with "+payload\n", anything else with "-ERR\n" and
// FIN) and frames (a big-endian length of 4 bytes and as many bytes, answered with the same).
//
// Whole requests are answered where they lie in the read buffer, those of one read with one send. Of a request that has
// not come completely the connection keeps the beginning, and further bytes are read behind it.
#include <arpa/inet.h>

#include <algorithm>
#include <string_view>

#include "floor_loop.h"

namespace edgewire::bench {
namespace {

// What a format's parse() finds in the bytes that have come.
struct Parsed {
  size_t consumed = 0;    // whole requests
  size_t replyBegin = 0;  // their replies, in the place of the requests
  size_t replyLength = 0;
  size_t partialRoom = 0;  // bytes to make room for, for the request that has begun behind them
  bool isBad = false;      // and nothing that follows can be understood
};

struct Lines {
  static constexpr std::string_view kRequest = "ECHO ";
  static constexpr std::string_view kError = "-ERR\n";
  static constexpr size_t kMaxPayload = 64 * 1024;
  static constexpr size_t kMaxLine = kRequest.size() + kMaxPayload + 1;
  static constexpr size_t kLeastRoom = 4096;

  // The first `searched` bytes are known to contain no end of a line.
  static Parsed parse(char* data, size_t length, size_t searched) {
    Parsed parsed;
    char* out = nullptr;  // where the next reply goes: never behind the request, which is longer
    const char* const end = data + length;
    char* line = data;
    while (char* lf = findEnd(std::max(line, data + searched), end)) {
      char* payload = line + kRequest.size();
      if (payload > lf || std::memcmp(line, kRequest.data(), kRequest.size()) != 0 ||
          static_cast<size_t>(lf - payload) > kMaxPayload) {
        parsed.isBad = true;
        break;
      }
      const auto tail = static_cast<size_t>(lf + 1 - payload);
      if (out == nullptr) {
        out = payload - 1;  // so the first one need not be moved
        parsed.replyBegin = static_cast<size_t>(out - data);
      } else {
        std::memmove(out + 1, payload, tail);
      }
      *out = '+';
      out += 1 + tail;
      line = lf + 1;
    }
    parsed.consumed = static_cast<size_t>(line - data);
    if (out != nullptr) parsed.replyLength = static_cast<size_t>(out - data) - parsed.replyBegin;
    const size_t partial = length - parsed.consumed;
    if (partial >= kMaxLine) parsed.isBad = true;
    parsed.partialRoom = std::min(std::max(2 * partial, kLeastRoom), kMaxLine);
    return parsed;
  }

 private:
  static char* findEnd(char* from, const char* end) {
    return static_cast<char*>(std::memchr(from, '\n', static_cast<size_t>(end - from)));
  }
};

struct Frames {
  static constexpr std::string_view kError = "";  // there is no frame for it
  static constexpr size_t kHeader = 4;
  static constexpr uint32_t kMaxPayload = 1024 * 1024;

  static Parsed parse(char* data, size_t length, size_t) {
    Parsed parsed;
    parsed.partialRoom = kHeader + kMaxPayload;
    while (length - parsed.consumed >= kHeader) {
      char* frame = data + parsed.consumed;
      uint32_t payload;
      std::memcpy(&payload, frame, kHeader);
      payload = ntohl(payload);
      if (payload == 0 || payload > kMaxPayload) {
        parsed.isBad = true;
        break;
      }
      parsed.partialRoom = kHeader + payload;
      if (length - parsed.consumed < kHeader + payload) break;
      const uint32_t header = htonl(payload);
      std::memcpy(frame, &header, kHeader);
      parsed.consumed += kHeader + payload;
    }
    parsed.replyLength = parsed.consumed;
    return parsed;
  }
};

struct RequestConn : Output {
  char* partial;  // the beginning of a request, or nullptr
  uint32_t partialLength;
  uint32_t partialRoom;
  bool isRejected;  // what still comes is dropped
};

template <typename Format>
class Requests : public FloorLoop<Requests<Format>, RequestConn> {
 public:
  using Loop = FloorLoop<Requests, RequestConn>;
  using Loop::Loop;

  void onEvent(int fd, uint32_t events) {
    const bool wasBlocked = this->conns_[fd].rest != nullptr;
    if (wasBlocked) {
      const Sent sent = this->sendRest(fd);
      if (sent == Sent::failed) return onEnd(fd);
      if (sent == Sent::kept) return;
      if (this->conns_[fd].isRejected) shutdown(fd, SHUT_WR);
    } else if (!Loop::isInput(events)) {
      return;
    }
    const bool untilEmpty = wasBlocked || Loop::isHangup(events);
    if (this->conns_[fd].isRejected) {
      this->readAll(fd, untilEmpty, [](size_t) { return true; });
    } else {
      readRequests(fd, untilEmpty);
    }
  }

  void onEnd(int fd) {
    std::free(this->conns_[fd].partial);
    this->close(fd);
  }

 private:
  // As readAll, but what has begun is read to where its beginning is.
  void readRequests(int fd, bool untilEmpty) {
    RequestConn& conn = this->conns_[fd];
    for (;;) {
      char* const data = conn.partial != nullptr ? conn.partial : this->buffer_;
      const size_t before = conn.partialLength;
      const size_t room = conn.partial != nullptr ? conn.partialRoom - before : kReadBytes;
      const ssize_t got = recv(fd, data + before, room, 0);
      if (got > 0) {
        if (!answer(fd, data, before, before + static_cast<size_t>(got))) return;
        if (static_cast<size_t>(got) < room && !untilEmpty) return;
        continue;
      }
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return;
      return onEnd(fd);
    }
  }

  // False: stop reading.
  bool answer(int fd, char* data, size_t before, size_t length) {
    RequestConn& conn = this->conns_[fd];
    const Parsed parsed = Format::parse(data, length, before);
    Sent sent = Sent::all;
    if (parsed.replyLength != 0) sent = this->sendOrKeep(fd, data + parsed.replyBegin, parsed.replyLength);
    if (sent == Sent::failed) return onEnd(fd), false;
    if (parsed.isBad) return reject(fd), false;
    keepPartial(conn, data + parsed.consumed, length - parsed.consumed, parsed.partialRoom);
    return sent == Sent::all;
  }

  static void keepPartial(RequestConn& conn, const char* bytes, size_t length, size_t room) {
    if (length == 0) {
      if (conn.partial != nullptr) dropPartial(conn);
      return;
    }
    if (conn.partial == nullptr) {
      conn.partial = static_cast<char*>(std::malloc(room));
      if (conn.partial == nullptr) die("malloc");
      std::memcpy(conn.partial, bytes, length);
    } else {
      std::memmove(conn.partial, bytes, length);
      if (room > conn.partialRoom) conn.partial = static_cast<char*>(std::realloc(conn.partial, room));
      if (conn.partial == nullptr) die("realloc");
    }
    conn.partialLength = static_cast<uint32_t>(length);
    conn.partialRoom = static_cast<uint32_t>(std::max<size_t>(room, conn.partialRoom));
  }

  static void dropPartial(RequestConn& conn) {
    std::free(conn.partial);
    conn.partial = nullptr;
    conn.partialLength = conn.partialRoom = 0;
  }

  // Closed only when the peer has closed: what it still sends would make the kernel answer with RST, which takes the
  // error away from it.
  void reject(int fd) {
    RequestConn& conn = this->conns_[fd];
    dropPartial(conn);
    conn.isRejected = true;
    Sent sent = Sent::all;
    if (conn.rest != nullptr) {
      this->keep(fd, Format::kError.data(), Format::kError.size());
      sent = Sent::kept;
    } else if (!Format::kError.empty()) {
      sent = this->sendOrKeep(fd, Format::kError.data(), Format::kError.size());
    }
    if (sent == Sent::failed) return onEnd(fd);
    if (sent == Sent::all) shutdown(fd, SHUT_WR);
    // What has been sent behind the bad request is read now: it makes no further edge, and its end may be among it.
    if (sent == Sent::all) this->readAll(fd, /*untilEmpty=*/true, [](size_t) { return true; });
  }
};

}  // namespace

void serveLines(const Config& config) {
  static Requests<Lines> server(config);
  server.run();
}

void serveFrames(const Config& config) {
  static Requests<Frames> server(config);
  server.run();
}

}  // namespace edgewire::bench
