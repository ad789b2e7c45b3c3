# One way in; everything behind it is CMake (CMakePresets.json).
#   make            build the program and the tests: build/release/nano-vllm
#   make run        install what is missing, build, tell a story with models/demo
#   make test       install what is missing, build, run all tests
#   make bench      measure models/demo; MODEL=..., BENCH_ARGS=...
#   make asan       tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   make emulated   the CUDA backend's tests without a GPU (tests/emulator plays one), under AddressSanitizer
#   make races      the same, looking for races between the kernels' threads
#   make fuzz       replay the fuzz corpora; FUZZ_SECONDS=300 fuzzes each target that long
#   make lint       warnings as errors, clang-format, layers, cppcheck
#   make install    PREFIX=/usr/local, DESTDIR=
#   make clean      remove the build folders
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 0
MODEL ?=
BENCH_ARGS ?=
ARGS ?=

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: all deps build run test bench asan emulated races fuzz lint format install clean help

all: build

help:
	@sed -n 's/^#   //p' Makefile

deps:
	@tools/install-deps.sh build

build/%/build.ninja: CMakeLists.txt CMakePresets.json
	@mkdir -p build
	@cmake --preset $* >build/configure-$*.log 2>&1 || { cat build/configure-$*.log; \
	  echo "make: to install what is missing: tools/install-deps.sh"; exit 1; }

build: build/release/build.ninja
	@cmake --build --preset release

run: deps build/release/build.ninja
	@cmake --build --preset release --target nano-vllm
	@build/release/nano-vllm run $(ARGS)

test: deps build
	@ctest --preset release -j 2

bench: deps build/release/build.ninja
	@cmake --build --preset release --target nano-vllm
	@build/release/nano-vllm bench $(if $(MODEL),-m $(MODEL)) $(BENCH_ARGS)

asan: deps build/asan/build.ninja
	@cmake --build --preset asan
	@ctest --preset asan -j 2

emulated: deps build/emulated/build.ninja
	@cmake --build --preset emulated --target cuda_tests
	@ctest --preset emulated -j 2

races: deps build/races/build.ninja
	@cmake --build --preset races --target cuda_tests
	@ctest --preset races -j 2

fuzz: build/fuzz/build.ninja
	@cmake --build --preset fuzz --target fuzzers
	@tools/fuzz.sh build/fuzz $(FUZZ_SECONDS)

lint: build/lint/build.ninja
	@tools/lint.sh

format:
	@find include src tests fuzz examples \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) -print0 | xargs -0 clang-format-14 -i

install: build
	@DESTDIR=$(DESTDIR) cmake --install build/release --prefix $(PREFIX)

clean:
	@rm -rf build/release build/debug build/asan build/emulated build/races build/lint build/cpu build/fuzz build/configure-*.log
