# freeport_flatbuffers(TARGET path/schema.fbs): generates path/schema_generated.h in the build tree, under the
# same path as the schema, and an interface target that carries the dependency.
find_program(FREEPORT_FLATC flatc REQUIRED)

function(freeport_flatbuffers target schema)
  get_filename_component(directory ${schema} DIRECTORY)
  get_filename_component(stem ${schema} NAME_WE)
  set(header ${CMAKE_BINARY_DIR}/${directory}/${stem}_generated.h)
  add_custom_command(
    OUTPUT ${header}
    COMMAND ${FREEPORT_FLATC} --cpp --scoped-enums --gen-object-api -o ${CMAKE_BINARY_DIR}/${directory} ${CMAKE_SOURCE_DIR}/${schema}
    DEPENDS ${CMAKE_SOURCE_DIR}/${schema}
    COMMENT "flatc ${schema}")
  add_custom_target(${target}_header DEPENDS ${header})
  add_library(${target} INTERFACE)
  add_dependencies(${target} ${target}_header)
endfunction()
