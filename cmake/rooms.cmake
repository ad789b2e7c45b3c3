# How a room (src/<name>) becomes a library, and how the rooms become the products.

# nvllm_room(name deps...): static library nvllm_<name> of src/<name>/**/*.c. A room without sources is empty.
function(nvllm_room name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.c)
  if(sources)
    add_library(nvllm_${name} STATIC ${sources})
    target_include_directories(nvllm_${name} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(nvllm_${name} PUBLIC ${ARGN})
  else()
    add_library(nvllm_${name} INTERFACE)
    target_include_directories(nvllm_${name} INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(nvllm_${name} INTERFACE ${ARGN})
  endif()
endfunction()

# The shared library (exports nvllm_* only), the program, and what `make install` puts in place.
function(nvllm_products)
  file(GLOB api CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/api/*.c)
  file(GLOB cli CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.c)
  if(NOT api OR NOT cli)
    return()
  endif()
endfunction()
