# How a room (src/<name>) becomes a library.

# nvllm_room(name deps...): static library nvllm_<name> of src/<name>/**/*.c. A room without sources is empty.
# The global property NVLLM_ROOMS lists the rooms that have sources; cmake/products.cmake joins them.
function(nvllm_room name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.c)
  if(sources)
    add_library(nvllm_${name} STATIC ${sources})
    target_include_directories(nvllm_${name} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(nvllm_${name} PUBLIC ${ARGN})
    set_property(GLOBAL APPEND PROPERTY NVLLM_ROOMS nvllm_${name})
  else()
    add_library(nvllm_${name} INTERFACE)
    target_include_directories(nvllm_${name} INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(nvllm_${name} INTERFACE ${ARGN})
  endif()
endfunction()
