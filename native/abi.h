// The shared-memory contract between the native core and lib/: one header here, one mirror in lib/abi.ts, one test that
// compares them. Both sides run on the same thread, so nothing here is atomic; each word has one writer unless it says
// otherwise.
//
//   control block   int32 words: ring positions, arena fill       float64 words: clock, counters
//   completions     ring of 4-word records, native -> JavaScript
//   commands        ring of 4-word records, JavaScript -> native
//   arena           bytes of small writes, empty again after every flush
//   connection tables  one row per connection index: float64 row (deadlines, byte counts) and int32 row (interest)
//
// Ring positions count records and run freely through the 32-bit space; position & (capacity - 1) is the slot.
#pragma once

#include <cstdint>

namespace edgewire::abi {

// Raised whenever anything below changes its meaning; lib/binding.ts refuses an addon with another number.
constexpr int32_t kAbiVersion = 3;

// A record: word 0 = type | detail << 8, word 1 = connection or listener index, words 2 and 3 by type.
constexpr int32_t kRecordWords = 4;
constexpr int32_t kCompletionCapacity = 4096;
constexpr int32_t kCommandCapacity = 4096;
constexpr int32_t kArenaBytes = 1048576;

// ---- completions: native -> JavaScript --------------------------------------------------------------------------
constexpr int32_t kCompletionAccepted = 1;     // conn; word 2 = listener index
constexpr int32_t kCompletionData = 2;         // conn; word 2 = address (chunk << 16 | offset), word 3 = bytes
constexpr int32_t kCompletionEnd = 3;          // conn: the peer's FIN, after all data before it
constexpr int32_t kCompletionDrain = 4;        // conn: output fell to the low watermark (asked for by kFlagWantDrain)
constexpr int32_t kCompletionFlushed = 5;      // conn: all output is with the kernel (asked for by kFlagWantFlushed)
constexpr int32_t kCompletionTimeout = 6;      // conn; detail = which deadline (kDeadline...)
constexpr int32_t kCompletionConnected = 7;    // conn: dialing succeeded
constexpr int32_t kCompletionClosed = 8;       // conn; detail = op (kOp...), word 2 = errno or 0: the last word on conn
constexpr int32_t kCompletionAcceptError = 9;  // listener; word 2 = errno
constexpr int32_t kCompletionHangup = 10;  // conn: the peer's FIN is here, but nobody reads: bytes may lie before it

// ---- commands: JavaScript -> native -----------------------------------------------------------------------------
constexpr int32_t kCommandWriteArena = 1;    // conn; word 2 = arena offset, word 3 = bytes
constexpr int32_t kCommandWriteSlab = 2;     // conn; word 2 = address, word 3 = bytes: sent from the slab itself
constexpr int32_t kCommandWritePinned = 3;   // conn; word 2 = id from pin(), word 3 = bytes; detail = kPinBriefly or 0
constexpr int32_t kCommandCloseWrite = 4;    // conn: FIN after what is queued
constexpr int32_t kCommandClose = 5;         // conn; word 2 = linger, milliseconds
constexpr int32_t kCommandAbort = 6;         // conn: RST
constexpr int32_t kCommandRead = 7;          // conn: interest was set while kFlagReadable stood
constexpr int32_t kCommandRetain = 8;        // word 1 = chunk
constexpr int32_t kCommandRelease = 9;       // word 1 = chunk
constexpr int32_t kCommandArm = 10;          // conn: a deadline lies before kRowArmedAt; word 2 = 1: a new idle timeout
constexpr int32_t kCommandAcknowledge = 11;  // conn: JavaScript has seen kCompletionClosed; the index may be used again
constexpr int32_t kCommandListenerClose = 12;   // word 1 = listener: stop accepting, close the socket
constexpr int32_t kCommandListenerAccept = 13;  // word 1 = listener; word 2 = 1 accept, 0 pause accepting

// ---- a connection's float64 row; times are milliseconds of the native monotonic clock ---------------------------
constexpr int32_t kRowWords = 6;
constexpr int32_t kRowReadDeadline = 0;   // JavaScript; Infinity: none. Native stores -Infinity when it has fired
constexpr int32_t kRowWriteDeadline = 1;  // as above
constexpr int32_t kRowArmedAt = 2;        // when the wheel looks next, kCommandArm included; Infinity: never
constexpr int32_t kRowIdleMs = 3;         // JavaScript: idle timeout, milliseconds; 0: none
constexpr int32_t kRowSentBytes = 4;      // native: bytes the kernel has taken
constexpr int32_t kRowReceivedBytes = 5;  // native: bytes read

// ---- a connection's int32 row -----------------------------------------------------------------------------------
constexpr int32_t kInterestWords = 2;
// What to read: 0 nothing, kReadStream all that comes, n > 0 one read of at most n bytes (native resets it to 0 then).
constexpr int32_t kInterestRead = 0;
constexpr int32_t kInterestFlags = 1;  // kFlag... bits, written by both sides as each bit says
constexpr int32_t kReadStream = -1;
constexpr int32_t kFlagReadable = 1;     // native: bytes, FIN or an error may lie in the kernel unread
constexpr int32_t kFlagWantDrain = 2;    // JavaScript sets, native clears when it reports
constexpr int32_t kFlagWantFlushed = 4;  // as above

// ---- detail values ----------------------------------------------------------------------------------------------
constexpr int32_t kDeadlineRead = 1;
constexpr int32_t kDeadlineWrite = 2;
constexpr int32_t kDeadlineIdle = 3;

// The memory will be written again: what the kernel does not take at once is copied.
constexpr int32_t kPinBriefly = 1;

constexpr int32_t kOpNone = 0;
constexpr int32_t kOpRead = 1;
constexpr int32_t kOpWrite = 2;
constexpr int32_t kOpDial = 3;
constexpr int32_t kOpClose = 4;  // the linger deadline passed with bytes unsent
constexpr int32_t kOpAbort = 5;  // JavaScript asked for it

// ---- control block, int32 words ---------------------------------------------------------------------------------
constexpr int32_t kControlWords = 16;
constexpr int32_t kControlCompletionHead = 0;  // JavaScript: next record to take
constexpr int32_t kControlCompletionTail = 1;  // native: next slot to fill
constexpr int32_t kControlCommandHead = 2;     // native
constexpr int32_t kControlCommandTail = 3;     // JavaScript
constexpr int32_t kControlArenaUsed = 4;       // JavaScript fills; native resets to 0 when it has executed the commands
constexpr int32_t kControlTableRows = 5;       // native: rows of the connection tables; a change means new ArrayBuffers

// ---- control block, float64 words: the clock and the counters, all written by native ----------------------------
constexpr int32_t kMetricWords = 32;
constexpr int32_t kMetricClockOffsetMs = 0;  // epoch milliseconds minus the native clock
constexpr int32_t kMetricClockNowMs = 1;     // the native clock at the last look
constexpr int32_t kMetricAccepted = 2;
constexpr int32_t kMetricDialed = 3;
constexpr int32_t kMetricClosed = 4;
constexpr int32_t kMetricBytesRead = 5;
constexpr int32_t kMetricBytesWritten = 6;
constexpr int32_t kMetricTurns = 7;        // turns that had something to do
constexpr int32_t kMetricDispatches = 8;   // calls from native into JavaScript
constexpr int32_t kMetricCompletions = 9;  // records handed to JavaScript
constexpr int32_t kMetricCommands = 10;    // records taken from JavaScript
constexpr int32_t kMetricFlushes = 11;     // send, writev or sendmsg calls
constexpr int32_t kMetricReads = 12;       // recv calls
constexpr int32_t kMetricPolls = 13;       // epoll_wait or kevent calls
constexpr int32_t kMetricAcceptErrors = 14;
constexpr int32_t kMetricSlabInUse = 15;
constexpr int32_t kMetricSlabPeak = 16;
constexpr int32_t kMetricSlabMapped = 17;
constexpr int32_t kMetricSlabBudget = 18;
constexpr int32_t kMetricStarved = 19;         // reads put off because the pool stood at its budget
constexpr int32_t kMetricMidTurnFlushes = 20;  // command ring or arena full in the middle of a dispatch
constexpr int32_t kMetricEvictions = 22;       // connections given up because their output filled the pool
constexpr int32_t kMetricShed = 23;            // connections turned away because no descriptor was left
constexpr int32_t kMetricWakes = 24;           // the driver's thread has woken the loop
constexpr int32_t kMetricGrowths = 21;         // turns in which a native table, list or the pool had to grow

// ---- slab geometry ----------------------------------------------------------------------------------------------
constexpr int32_t kChunkBytesLog2 = 16;
constexpr int32_t kSlabBytesLog2 = 20;

// ---- addresses(), socket options --------------------------------------------------------------------------------
constexpr int32_t kAddressLocal = 0;
constexpr int32_t kAddressRemote = 1;
constexpr int32_t kAddressListener = 2;

constexpr int32_t kOptionNoDelay = 1;        // value 0 or 1
constexpr int32_t kOptionKeepAlive = 2;      // 0: off; -1: on; n > 0: on, first probe after n seconds
constexpr int32_t kOptionReceiveBuffer = 3;  // bytes
constexpr int32_t kOptionSendBuffer = 4;     // bytes

// ---- listen() and dial(): what the name is, and flags -----------------------------------------------------------
constexpr int32_t kNameIp = 0;
constexpr int32_t kNamePath = 1;
constexpr int32_t kNameDescriptor = 2;  // listen() only: the port argument is an open descriptor

constexpr int32_t kOpenIpv6Only = 1;
constexpr int32_t kOpenReusePort = 2;
constexpr int32_t kOpenNoDelay = 4;
constexpr int32_t kOpenFastOpen = 8;  // dial() only

// ---- open(): who gives the reactor its turns --------------------------------------------------------------------
constexpr int32_t kDriverUvPoll = 0;
constexpr int32_t kDriverWaiter = 1;
constexpr int32_t kDriverWaiterTsfn = 2;
constexpr int32_t kDriverPrepare = 3;

}  // namespace edgewire::abi
