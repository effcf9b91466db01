#!/usr/bin/env bash
# Builds the fuzz target, replays the corpus, then fuzzes the reactor for so many seconds (default 60).
#
#   test/fuzz/run.sh [seconds]        EDGEWIRE_FUZZ_SEED=N repeats a run; a finding lies in build/fuzz/crash-...
#   test/fuzz/run.sh minimise         folds what build/fuzz/found has into test/fuzz/corpus
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly OUT=build/fuzz
readonly CORPUS=test/fuzz/corpus
# A run of the longest input stays far below a millisecond, and longer ones find nothing that these do not.
readonly INPUT_BYTES_MAX=512
readonly INPUT_SECONDS_MAX=10
readonly LONGEST_KEPT=50
main() {
  local wanted=${1:-60} seed=${EDGEWIRE_FUZZ_SEED:-$RANDOM$RANDOM}
  build
  mkdir -p "$OUT/found"
  if [[ $wanted == minimise ]]; then
    minimise
    return
  fi
  echo "replaying $(find "$CORPUS" -type f | wc -l) inputs"
  fuzz -runs=0 "$CORPUS"
  ((wanted > 0)) || return 0
  echo "EDGEWIRE_FUZZ_SEED=$seed, $wanted s"
  fuzz -seed="$seed" -max_total_time="$wanted" -print_final_stats=1 "$OUT/found" "$CORPUS"
}

compiler() {
  local name
  for name in ${FUZZ_CXX:-} clang++ clang++-14 clang++-15 clang++-16 clang++-19; do
    command -v "$name" && return
  done
  echo 'the fuzz target needs clang++ with libFuzzer; on Debian: apt-get install clang-14 libclang-rt-14-dev' >&2
  return 1
}

# Only what changed is compiled again.
build() {
  local cxx file sources objects=()
  cxx=$(compiler)
  # The core's sources are those that binding.gyp lists.
  sources=$(grep -o 'native/core/[a-z_]*\.cc' binding.gyp | grep -v kqueue)
  mkdir -p "$OUT"
  local flags=(-std=gnu++20 -O2 -g -fno-omit-frame-pointer -fno-exceptions -fno-rtti -Wall -Wextra -Inative
    -fsanitize=address,undefined -fno-sanitize-recover=undefined)
  for file in $sources test/fuzz/kernel.cc test/fuzz/reactor_fuzz.cc; do
    local object="$OUT/$(basename "$file" .cc).o" coverage=
    # What leads the fuzzer is what it reaches in the core; no comparison there is with a magic value.
    [[ $file != native/* ]] || coverage=-fsanitize-coverage=inline-8bit-counters,pc-table,indirect-calls
    objects+=("$object")
    if [[ -e $object && ! $file -nt $object && ! test/fuzz/run.sh -nt $object ]] &&
      [[ -z $(find native/core native/abi.h test/fuzz -name '*.h' -newer "$object" -print -quit) ]]; then
      continue
    fi
    "$cxx" "${flags[@]}" $coverage -c "$file" -o "$object"
  done
  "$cxx" -fsanitize=fuzzer,address,undefined "${objects[@]}" -o "$OUT/reactor_fuzz"
}

fuzz() {
  ASAN_OPTIONS=quarantine_size_mb=32 UBSAN_OPTIONS=print_stacktrace=1 "$OUT/reactor_fuzz" \
    -max_len="$INPUT_BYTES_MAX" -timeout="$INPUT_SECONDS_MAX" -artifact_prefix="$OUT/" -print_funcs=0 -reload=0 \
    -verbosity="${EDGEWIRE_FUZZ_VERBOSITY:-0}" "$@"
}

# Few inputs that together reach every place that any has reached; and some of the longest, which go on from deep states.
minimise() {
  local merged="$OUT/merged" name
  rm -rf "$merged"
  mkdir "$merged"
  fuzz -set_cover_merge=1 -use_counters=0 "$merged" "$CORPUS" "$OUT/found"
  while read -r _ name; do
    cp "$OUT/found/$name" "$merged"
  done < <(find "$OUT/found" -type f -printf '%s %f\n' | sort -rn | head -"$LONGEST_KEPT")
  rm -rf "$CORPUS"
  mv "$merged" "$CORPUS"
  du -sb "$CORPUS"
}

main "$@"
