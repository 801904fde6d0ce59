# freeport_add_backend(NAME): adds backends/NAME/runtime to the runtime library and backends/NAME/compiler to the
# compiler library, and NAME to Backends.inc, which both registries expand. Nothing else names a backend.
set_property(GLOBAL PROPERTY FREEPORT_BACKENDS "")

function(freeport_add_backend name)
  set_property(GLOBAL APPEND PROPERTY FREEPORT_BACKENDS ${name})
  add_subdirectory(${name})
endfunction()

# Writes Backends.inc from the backends added so far; called once, at the end of backends/CMakeLists.txt.
function(freeport_write_backends)
  get_property(names GLOBAL PROPERTY FREEPORT_BACKENDS)
  set(text "")
  foreach(name IN LISTS names)
    string(APPEND text "FREEPORT_BACKEND(${name})\n")
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/backends/Backends.inc CONTENT "${text}" @ONLY)
endfunction()

# freeport_backend_sources(NAME): called by backends/NAME/CMakeLists.txt; gives every source below runtime/ to the runtime
# library and every source below compiler/ to the compiler library.
function(freeport_backend_sources name)
  file(GLOB runtime CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/runtime/*.cpp)
  file(GLOB compiler CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/compiler/*.cpp)
  target_sources(freeport_runtime PRIVATE ${runtime})
  set_property(GLOBAL APPEND PROPERTY FREEPORT_COMPILER_SOURCES ${compiler})
endfunction()

# freeport_backend_libraries(TARGET...): links libraries that both halves of a backend use, such as the headers of its format.
function(freeport_backend_libraries)
  target_link_libraries(freeport_runtime PRIVATE ${ARGN})
  set_property(GLOBAL APPEND PROPERTY FREEPORT_COMPILER_LIBRARIES ${ARGN})
endfunction()
