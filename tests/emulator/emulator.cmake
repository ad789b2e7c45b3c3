# The CUDA sources compiled by the C++ compiler; see machine.h.
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
include_directories(BEFORE ${PROJECT_SOURCE_DIR}/tests/emulator) # before src: its ops/ptx.cuh stands for ours
# Kernels read memory as other types than it was written as, and nvcc lets them.
set(options -Wall -Wextra -Wno-unknown-pragmas -Wno-array-bounds -fno-strict-aliasing -ffp-contract=off)
if(NVLLM_SANITIZE)
  list(APPEND options -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
endif()
if(NOT CMAKE_BUILD_TYPE STREQUAL Debug)
  list(APPEND options -O3)
endif()
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${options}>")

option(NVLLM_EMULATED_RACES "Find races of the kernels on the emulated GPU" OFF)
set(emulator ${PROJECT_SOURCE_DIR}/tests/emulator)
add_library(nvllm_emulator STATIC ${emulator}/machine.cpp ${emulator}/races.cpp
  ${emulator}/runtime.cpp ${emulator}/cublaslt.cpp)
target_include_directories(nvllm_emulator PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(nvllm_emulator PRIVATE NVLLM_EMULATED_RACES=$<BOOL:${NVLLM_EMULATED_RACES}>)
target_link_libraries(nvllm_emulator PUBLIC stdc++)
add_library(CUDA::cudart_static ALIAS nvllm_emulator)

# nvllm_emulate(variable): the .cu files in the list `variable`; takes out what the emulator has itself.
function(nvllm_emulate variable)
  list(FILTER ${variable} EXCLUDE REGEX "/cublaslt\\.cu$")
  set(${variable} ${${variable}} PARENT_SCOPE)
  set_source_files_properties(${${variable}} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
    "$<$<BOOL:${NVLLM_EMULATED_RACES}>:-fsanitize=thread>")
endfunction()
