// The connection table: dense indices with generations, and the two shared rows that belong to each index.
//
// An index is handed out by allocate() and comes back with free(), which raises its generation: a poller event that
// carries an old token {index, generation} finds nobody. Indices are reused last-in-first-out, so a busy server keeps
// touching the same rows. Growth moves the rows (the host makes new ArrayBuffers and copies), so pointers into them are
// good only until the next allocate().
//
// Memory is asked for in large steps and used from its beginning: a page costs nothing until the first connection on it.
#pragma once

#include <cstdint>
#include <limits>

#include "abi.h"
#include "core/conn.h"

namespace edgewire {

// Where the shared rows come from.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Makes room for `rows` rows, keeping the content of those that exist; false when there is no memory.
  virtual bool grow_rows(uint32_t rows, double** doubles, int32_t** words) noexcept = 0;
};

class ConnTable {
 public:
  // 16,384 rows are 2.4 MB of addresses; from there it doubles.
  static constexpr uint32_t kRowsAtStart = 1u << 14;
  // The index must fit an int32 word and leave room for the listener bit of a token.
  static constexpr uint32_t kRowsMax = 1u << 24;

  explicit ConnTable(RowSource& source) : source_(source) {}
  ~ConnTable();
  ConnTable(const ConnTable&) = delete;
  ConnTable& operator=(const ConnTable&) = delete;

  // A fresh connection in state kFree with cleared rows, or kNoIndex when there is no memory.
  uint32_t allocate() noexcept;
  void free(uint32_t index) noexcept;

  // nullptr for an index that is out of range or free: for values that come from outside.
  Conn* find(int32_t index) noexcept {
    if (index < 0 || static_cast<uint32_t>(index) >= rows()) return nullptr;
    Conn& conn = conns_[static_cast<uint32_t>(index)];
    return conn.state == ConnState::kFree ? nullptr : &conn;
  }
  // nullptr when the token is of an earlier life of the index.
  Conn* find_token(uint64_t token) noexcept {
    Conn* conn = find(static_cast<int32_t>(token & UINT32_MAX));
    return conn != nullptr && conn->generation == token >> 32 ? conn : nullptr;
  }
  Conn& at(uint32_t index) noexcept { return conns_[index]; }
  uint64_t token(uint32_t index) const noexcept { return uint64_t{conns_[index].generation} << 32 | index; }

  double* row(uint32_t index) const noexcept { return doubles_ + size_t{index} * abi::kRowWords; }
  int32_t* interest(uint32_t index) const noexcept { return words_ + size_t{index} * abi::kInterestWords; }

  // Every index that was ever handed out lies below it.
  uint32_t rows() const noexcept { return rows_; }
  uint32_t capacity() const noexcept { return capacity_; }
  uint32_t in_use() const noexcept { return in_use_; }

 private:
  bool grow() noexcept;

  RowSource& source_;
  Conn* conns_ = nullptr;  // `rows_` of them are constructed
  uint32_t rows_ = 0;
  uint32_t capacity_ = 0;
  uint32_t free_head_ = kNoIndex;  // a stack, linked by Conn::listener
  double* doubles_ = nullptr;
  int32_t* words_ = nullptr;
  uint32_t in_use_ = 0;
};

}  // namespace edgewire
