# How the rooms become what people use: the shared and the static library, the program, and the installed tree.
include(GNUInstallDirs)
set(CMAKE_INSTALL_LIBDIR lib CACHE PATH "Libraries and pkg-config files, below the prefix" FORCE)

# libnanovllm.so and libnanovllm.a hold the objects of all rooms; both export nvllm_* only (cmake/exports.map).
function(nvllm_libraries)
  get_property(rooms GLOBAL PROPERTY NVLLM_ROOMS)
  set(objects "")
  foreach(room ${rooms})
    list(APPEND objects $<TARGET_OBJECTS:${room}>)
  endforeach()
  add_library(nanovllm SHARED ${objects})
  add_library(nanovllm_static STATIC ${objects})
  foreach(library nanovllm nanovllm_static)
    set_target_properties(${library} PROPERTIES OUTPUT_NAME nanovllm LINKER_LANGUAGE C)
    target_include_directories(${library} INTERFACE ${PROJECT_SOURCE_DIR}/include)
    target_link_libraries(${library} PRIVATE PkgConfig::JANSSON PkgConfig::PCRE2 PkgConfig::UTF8PROC Threads::Threads m)
    if(NVLLM_HAVE_CUDA)
      target_link_libraries(${library} PRIVATE CUDA::cudart_static)
    endif()
  endforeach()
  set_target_properties(nanovllm PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/exports.map)
  target_link_options(nanovllm PRIVATE -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/exports.map)
endfunction()

# The HTTP server is a room above the public header: the program has it, the libraries have not.
function(nvllm_server)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/serve/*.c)
  set(page ${PROJECT_SOURCE_DIR}/src/serve/web/index.html)
  set(embedded ${CMAKE_CURRENT_BINARY_DIR}/web_page.c)
  add_custom_command(OUTPUT ${embedded}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${page} -DOUTPUT=${embedded} -DNAME=web_page
            -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${page} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
  add_library(nvllm_serve STATIC ${sources} ${embedded})
  target_include_directories(nvllm_serve PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(nvllm_serve PUBLIC PkgConfig::JANSSON PkgConfig::MICROHTTPD Threads::Threads m)
endfunction()

# The program links the rooms statically, so that it starts without searching for the library. It sees the public
# header and serve/serve.h only (tools/layers.txt).
function(nvllm_program)
  add_executable(nano-vllm ${ARGN})
  target_include_directories(nano-vllm PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(nano-vllm PRIVATE $<LINK_ONLY:nvllm_serve> $<LINK_ONLY:nvllm_api> PkgConfig::JANSSON PkgConfig::EDIT m)
  add_custom_command(OUTPUT nano-vllm.1 nano-vllm.bash
    COMMAND nano-vllm --man > nano-vllm.1
    COMMAND nano-vllm --completion > nano-vllm.bash
    DEPENDS nano-vllm VERBATIM)
  add_custom_target(manual ALL DEPENDS ${CMAKE_CURRENT_BINARY_DIR}/nano-vllm.1)
endfunction()

function(nvllm_install)
  install(TARGETS nano-vllm nanovllm nanovllm_static)
  install(FILES ${PROJECT_SOURCE_DIR}/include/nanovllm.h TYPE INCLUDE)
  if(NVLLM_HAVE_CUDA)
    set(NVLLM_STATIC_LIBS " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt") # for static linking only
  endif()
  configure_file(${PROJECT_SOURCE_DIR}/cmake/nanovllm.pc.in nanovllm.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/nanovllm.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/nano-vllm.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/nano-vllm.bash
          DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME nano-vllm)
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/docs/server.md
          ${PROJECT_SOURCE_DIR}/packaging/nano-vllm.service DESTINATION ${CMAKE_INSTALL_DOCDIR})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/demo
          DESTINATION ${CMAKE_INSTALL_DATADIR}/nano-vllm/models OPTIONAL)
endfunction()

function(nvllm_products)
  file(GLOB api CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/api/*.c)
  file(GLOB cli CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.c)
  if(NOT api OR NOT cli)
    message(STATUS "nano-vllm: src/api or src/cli has no sources yet, so only the rooms are built")
    return()
  endif()
  nvllm_libraries()
  nvllm_server()
  nvllm_program(${cli})
  nvllm_install()
endfunction()
