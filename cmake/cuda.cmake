# The CUDA backend is compiled where nvcc is found (NVLLM_CUDA=AUTO), and only then. cudart is linked statically, and
# the .cu files need no C++ library, so one program runs with and without a GPU.
#
# NVLLM_HAVE_CUDA is set when it is compiled in. Architectures: all that we support, about two minutes; set
# CMAKE_CUDA_ARCHITECTURES, or CUDAARCHS in the environment (CMake's own variable), to build fewer.
#
# NVLLM_CUDA=EMULATED compiles the same sources with the C++ compiler, for a GPU that tests/emulator plays: for tests only.
set(NVLLM_HAVE_CUDA OFF)
if(NVLLM_CUDA STREQUAL EMULATED)
  include(tests/emulator/emulator.cmake)
  set(NVLLM_HAVE_CUDA ON)
elseif(NOT NVLLM_CUDA STREQUAL OFF)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
      set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 120 CACHE STRING "" FORCE)
    endif()
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    add_compile_options(
      $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fno-exceptions,-fno-rtti,-fno-threadsafe-statics,-Wall,-Wextra>)
    set(NVLLM_HAVE_CUDA ON)
  elseif(NVLLM_CUDA STREQUAL ON)
    message(FATAL_ERROR "NVLLM_CUDA=ON, but no nvcc was found: install the CUDA toolkit or set CUDACXX")
  endif()
endif()
message(STATUS "nano-vllm: CUDA backend ${NVLLM_HAVE_CUDA}")
