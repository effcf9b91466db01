// The mirror of native/abi.h: the layout of the memory that lib/ and the addon share. test/tidy compares the two, so a
// change goes into both. What each word means is said there; the names are the same without the leading k.

export const AbiVersion = 3
export const RecordWords = 4
export const CompletionCapacity = 4096
export const CommandCapacity = 4096
export const ArenaBytes = 1048576

// completions: native -> JavaScript
export const CompletionAccepted = 1
export const CompletionData = 2
export const CompletionEnd = 3
export const CompletionDrain = 4
export const CompletionFlushed = 5
export const CompletionTimeout = 6
export const CompletionConnected = 7
export const CompletionClosed = 8
export const CompletionAcceptError = 9
export const CompletionHangup = 10

// commands: JavaScript -> native
export const CommandWriteArena = 1
export const CommandWriteSlab = 2
export const CommandWritePinned = 3
export const CommandCloseWrite = 4
export const CommandClose = 5
export const CommandAbort = 6
export const CommandRead = 7
export const CommandRetain = 8
export const CommandRelease = 9
export const CommandArm = 10
export const CommandAcknowledge = 11
export const CommandListenerClose = 12
export const CommandListenerAccept = 13

// a connection's float64 row; times are milliseconds of the native monotonic clock
export const RowWords = 6
export const RowReadDeadline = 0
export const RowWriteDeadline = 1
export const RowArmedAt = 2
export const RowIdleMs = 3
export const RowSentBytes = 4
export const RowReceivedBytes = 5

// a connection's int32 row
export const InterestWords = 2
export const InterestRead = 0
export const InterestFlags = 1
export const ReadStream = -1
export const FlagReadable = 1
export const FlagWantDrain = 2
export const FlagWantFlushed = 4

// detail values
export const DeadlineRead = 1
export const DeadlineWrite = 2
export const DeadlineIdle = 3
export const PinBriefly = 1
export const OpNone = 0
export const OpRead = 1
export const OpWrite = 2
export const OpDial = 3
export const OpClose = 4
export const OpAbort = 5

// control block, int32 words
export const ControlWords = 16
export const ControlCompletionHead = 0
export const ControlCompletionTail = 1
export const ControlCommandHead = 2
export const ControlCommandTail = 3
export const ControlArenaUsed = 4
export const ControlTableRows = 5

// control block, float64 words: the clock and the counters, all written by native
export const MetricWords = 32
export const MetricClockOffsetMs = 0
export const MetricClockNowMs = 1
export const MetricAccepted = 2
export const MetricDialed = 3
export const MetricClosed = 4
export const MetricBytesRead = 5
export const MetricBytesWritten = 6
export const MetricTurns = 7
export const MetricDispatches = 8
export const MetricCompletions = 9
export const MetricCommands = 10
export const MetricFlushes = 11
export const MetricReads = 12
export const MetricPolls = 13
export const MetricAcceptErrors = 14
export const MetricSlabInUse = 15
export const MetricSlabPeak = 16
export const MetricSlabMapped = 17
export const MetricSlabBudget = 18
export const MetricStarved = 19
export const MetricMidTurnFlushes = 20
export const MetricGrowths = 21
export const MetricEvictions = 22
export const MetricShed = 23
export const MetricWakes = 24

// slab geometry
export const ChunkBytesLog2 = 16
export const SlabBytesLog2 = 20

// addresses(), socket options
export const AddressLocal = 0
export const AddressRemote = 1
export const AddressListener = 2
export const OptionNoDelay = 1
export const OptionKeepAlive = 2
export const OptionReceiveBuffer = 3
export const OptionSendBuffer = 4

// listen() and dial(): what the name is, and flags
export const NameIp = 0
export const NamePath = 1
export const NameDescriptor = 2
export const OpenIpv6Only = 1
export const OpenReusePort = 2
export const OpenNoDelay = 4
export const OpenFastOpen = 8

// open(): who gives the reactor its turns
export const DriverUvPoll = 0
export const DriverWaiter = 1
export const DriverWaiterTsfn = 2
export const DriverPrepare = 3
