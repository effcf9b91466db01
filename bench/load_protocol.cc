#include "load_protocol.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace edgewire::bench {
namespace {

// The tables of lines and frames hold this many bytes of requests, but no fewer than this many different ones.
constexpr size_t kTableBytes = 64 * 1024;
constexpr size_t kLeastMessages = 7;
// Each connection begins so many messages behind the one before. A prime, so that no count of messages divides it.
constexpr size_t kMessagesBetweenStreams = 7919;

constexpr std::string_view kLineRequest = "ECHO ";
constexpr std::string_view kLineReply = "+";
constexpr size_t kFrameHeader = 4;

// Every printable character, spaces included: a parser that trims is found out.
uint8_t printable(uint8_t byte) {
  constexpr uint8_t kFirst = ' ';
  constexpr uint8_t kCount = '~' - ' ' + 1;
  return static_cast<uint8_t>(kFirst + byte % kCount);
}

void append(std::vector<uint8_t>& table, std::string_view text) { table.insert(table.end(), text.begin(), text.end()); }

void appendLength(std::vector<uint8_t>& table, size_t length) {
  for (int shift = 24; shift >= 0; shift -= 8) table.push_back(static_cast<uint8_t>(length >> shift));
}

}  // namespace

Protocol::Protocol(const Options& options)
    : requestSize_(options.size), replySize_(options.size), wholeRequests_(options.mode != Mode::echo) {
  if (options.mode == Mode::lines) {
    requestSize_ += kLineRequest.size() + 1;
    replySize_ += kLineReply.size() + 1;
    makeTables(options);
  } else if (options.mode == Mode::frames) {
    requestSize_ += kFrameHeader;
    replySize_ += kFrameHeader;
    makeTables(options);
  } else {
    wholeRequests_ = false;
    requests_ = replies_ = std::make_shared<Pattern>();
  }
}

void Protocol::makeTables(const Options& options) {
  const size_t messages = std::max(kLeastMessages, kTableBytes / requestSize_);
  std::vector<uint8_t> payloads = makeNoise(messages * options.size);
  std::vector<uint8_t> requests;
  std::vector<uint8_t> replies;
  for (size_t message = 0; message < messages; message++) {
    const auto begin = payloads.begin() + static_cast<ptrdiff_t>(message * options.size);
    const auto end = begin + static_cast<ptrdiff_t>(options.size);
    if (options.mode == Mode::lines) {
      std::transform(begin, end, begin, printable);
      append(requests, kLineRequest);
      append(replies, kLineReply);
    } else {
      appendLength(requests, options.size);
      appendLength(replies, options.size);
    }
    requests.insert(requests.end(), begin, end);
    replies.insert(replies.end(), begin, end);
    if (options.mode == Mode::lines) {
      requests.push_back('\n');
      replies.push_back('\n');
    }
  }
  requests_ = std::make_shared<Pattern>(std::move(requests), kMessagesBetweenStreams * requestSize_);
  replies_ = std::make_shared<Pattern>(std::move(replies), kMessagesBetweenStreams * replySize_);
}

}  // namespace edgewire::bench
