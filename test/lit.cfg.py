# lit runs every .mlir file under test/ and under backends/*/test/ by its RUN lines. The site configuration, written
# by CMake into the build tree, says which of the two roots this suite is and which backends the build has.
import os

import lit.formats

if not hasattr(config, "freeport_suite_root"):
    lit_config.fatal("run `./dev test lit FILTER`, or lit on BUILD/test: CMake wrote the configuration there")

config.name = "freeport/" + os.path.basename(config.freeport_suite_root)
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.test_source_root = config.freeport_suite_root
config.test_exec_root = config.freeport_exec_root

# RUN lines name tools plainly: ours come first, then FileCheck, split-file and not of the LLVM that we build with.
tool_folders = [config.freeport_tool_folder, config.llvm_tool_folder]
for tool in ("FileCheck", "split-file", "not"):
    if not os.access(os.path.join(config.llvm_tool_folder, tool), os.X_OK):
        lit_config.fatal(f"expects {tool} in {config.llvm_tool_folder}: install llvm-19-tools (./dev setup does)")
config.environment["PATH"] = os.pathsep.join(tool_folders + [os.environ["PATH"]])
config.environment["FILECHECK_OPTS"] = "-enable-var-scope"

# `REQUIRES: backend-cpu` keeps a shared test alive when that backend's folder is deleted.
for name in config.freeport_backends:
    config.available_features.add("backend-" + name)
