#!/bin/sh
# What `make lint` runs: warnings as errors, clang-format, the layer check, cppcheck. Runs all, then fails if any did.
set -u
failed=
step()
{
    name=$1
    shift
    if log=$("$@" 2>&1); then
        echo "lint: $name ok"
    else
        printf '%s\n' "$log"
        echo "lint: $name FAILED"
        failed="$failed $name"
    fi
}
formatted()
{
    find include src tests fuzz examples \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) -print0 | xargs -0 clang-format-14 --dry-run -Werror
}
checked()
{
    cppcheck --enable=warning,performance,portability --inline-suppr --suppressions-list=tools/cppcheck.txt \
        --library=tools/cppcheck.xml --error-exitcode=1 --std=c11 --quiet -j 2 -DNDEBUG -I include -I src src examples
}
step warnings cmake --build --preset lint -- --quiet
step format formatted
step layers python3 tools/check_layers.py
step cppcheck checked
[ -z "$failed" ]
