#!/bin/sh
# Replays every fuzz corpus, or fuzzes each target for a while. Usage: tools/fuzz.sh BUILD_FOLDER [SECONDS]
# Finds of a fuzzing run are written to BUILD_FOLDER/finds; the corpus in the checkout stays as it is.
set -eu
build=$1
seconds=${2:-0}
if [ "$seconds" = 0 ]; then
    exec ctest --test-dir "$build" --output-on-failure --no-label-summary -j 2 -L fuzz
fi
mkdir -p "$build/finds"
for source in fuzz/fuzz_*.c; do
    subject=$(basename "$source" .c | sed 's/^fuzz_//')
    mkdir -p "$build/corpus/$subject"
    dictionary=fuzz/dict/$subject.dict
    options="-max_total_time=$seconds -timeout=10 -rss_limit_mb=4096 -print_final_stats=1"
    [ ! -f "$dictionary" ] || options="$options -dict=$dictionary"
    echo "fuzz $subject for $seconds s"
    if ! "$build/fuzz/fuzz_$subject" $options -artifact_prefix="$build/finds/$subject-" \
        "$build/corpus/$subject" "fuzz/corpus/$subject" >"$build/$subject.log" 2>&1; then
        tail -n 40 "$build/$subject.log"
        exit 1
    fi
    grep -E 'stat::number_of_executed_units|stat::new_units_added' "$build/$subject.log" | sed 's/^/  /'
done
