#!/usr/bin/env python3
"""Compares builds of nano-vllm by their own `bench`, on one machine, in turns.

    tools/compare_builds.py [--rounds N] [--case "OPTIONS"]... PROGRAM [PROGRAM...]

Every case is options of `bench` ("--device cuda --random-weights CONFIG --context 4096"). Each round runs all programs
once, in an order that rotates, so that a machine that warms up or slows down treats them alike. Printed per case and
program: the median over the rounds of generated tokens per second and of prompt tokens per second, their least and
most, and the ratio to the first program. A figure of one run is the median of that run's --reps.
Exit code 1: a run failed; its last words are printed, and the others go on.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys

FIGURES = (("generate", "generated_tokens_per_second"), ("prompt", "prompt_tokens_per_second"))
LIMIT_S = 300


def run(program, case):
    """One bench as a dict of medians, or the sentence that says why not."""
    command = [program, "bench", "--json", *shlex.split(case)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["no output"])[-1] + f" (exit code {done.returncode})"
    document = json.loads(done.stdout)
    return {name: document[key]["median"] for name, key in FIGURES}


def compare(programs, case, rounds):
    """Prints a case's table; false: a run failed."""
    figures = {program: [] for program in programs}
    failures = {}
    for n in range(rounds):
        turn = n % len(programs)
        for program in programs[turn:] + programs[:turn]:
            if program in failures:
                continue
            result = run(program, case)
            if isinstance(result, str):
                failures[program] = result
            else:
                figures[program].append(result)
    print(f"\n{case or '(the default)'}")
    width = max(len(p) for p in programs)
    for name, _ in FIGURES:
        first = None
        for program in programs:
            values = [f[name] for f in figures[program]]
            if program in failures or not values or min(values) <= 0:
                continue
            middle = statistics.median(values)
            first = first or middle
            print(f"  {name:8} {program:{width}} {middle:12,.1f}  ({min(values):,.1f} - {max(values):,.1f})"
                  f"  {middle / first:6.3f}")
    for program, sentence in failures.items():
        print(f"  FAILED   {program:{width}} {sentence}")
    sys.stdout.flush()
    return not failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="append", help="options of bench; may be given several times")
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, must be at least 1")
    if len(set(options.programs)) < len(options.programs):
        parser.error("the same program is given twice")
    results = [compare(options.programs, case, options.rounds) for case in options.case or [""]]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
