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
