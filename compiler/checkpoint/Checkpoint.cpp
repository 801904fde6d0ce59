// Weights are read with pread and dropped from the page cache's account of this process: mapped pages would count as
// its own.
#include "compiler/checkpoint/Checkpoint.h"
#include "compiler/checkpoint/GgufModel.h"
#include "compiler/checkpoint/Safetensors.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <set>
#include <unistd.h>

namespace freeport::checkpoint {

using llvm::createStringError;
namespace fs = llvm::sys::fs;

static constexpr uint64_t kMaximumText = 256 << 20;

/// Whether `name` stays in its folder, on every system.
static bool isFileName(llvm::StringRef name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(llvm::StringRef("/\\\0", 3)) == llvm::StringRef::npos;
}

Checkpoint::Checkpoint(Checkpoint &&other)
    : location(std::move(other.location)), single(other.single), texts(std::move(other.texts)),
      remarks(std::move(other.remarks)), configuration(std::move(other.configuration)), paths(std::move(other.paths)),
      handles(std::move(other.handles)), all(std::move(other.all)) {
  other.handles.clear();
}

Checkpoint::~Checkpoint() {
  for (int handle : handles)
    ::close(handle);
}

llvm::Expected<std::optional<std::string>> Checkpoint::text(llvm::StringRef file) const {
  if (single) {
    auto found = texts.find(file.str());
    return found == texts.end() ? std::nullopt : std::optional(found->second);
  }
  llvm::SmallString<256> path(location);
  llvm::sys::path::append(path, file);
  if (!fs::exists(path))
    return std::nullopt;
  uint64_t bytes = 0;
  if (std::error_code code = fs::file_size(path, bytes))
    return createStringError(path + ": " + code.message());
  if (bytes > kMaximumText)
    return createStringError(path + ": expects at most " + llvm::Twine(kMaximumText) + " bytes, got " +
                             llvm::Twine(bytes));
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!buffer)
    return createStringError(path + ": " + buffer.getError().message());
  return (*buffer)->getBuffer().str();
}

llvm::Expected<Checkpoint> Checkpoint::open(llvm::StringRef path) {
  if (!fs::exists(path))
    return createStringError(path + ": expects a checkpoint folder or a GGUF file, got nothing of that name");
  Checkpoint checkpoint;
  checkpoint.location = path.str();
  checkpoint.single = !fs::is_directory(path);
  if (llvm::Error error = checkpoint.single ? checkpoint.openGguf() : checkpoint.openFolder())
    return std::move(error);
  return checkpoint;
}

llvm::Error Checkpoint::openWeights(const std::string &path) {
  int handle = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (handle < 0)
    return createStringError(path + ": " + std::strerror(errno));
  paths.push_back(path);
  handles.push_back(handle);
  return llvm::Error::success();
}

llvm::Error Checkpoint::openGguf() {
  if (!fs::is_regular_file(location)) // opening a pipe would wait
    return createStringError(location + ": expects a checkpoint folder or a GGUF file, got something else");
  if (llvm::Error error = openWeights(location))
    return error;
  char magic[4] = {};
  if (::pread(handles[0], magic, sizeof(magic), 0) != sizeof(magic) || !isGguf({magic, sizeof(magic)}))
    return createStringError(location + ": expects a checkpoint folder (config.json and *.safetensors) or a GGUF file, "
                                        "got a file that begins otherwise");
  auto header = readGgufHeader(location);
  if (!header)
    return header.takeError();
  auto model =
      translateGguf(location, std::move(*header), [&](const TensorInfo &tensor, llvm::MutableArrayRef<uint8_t> target) {
        return read(tensor, 0, target);
      });
  if (!model)
    return model.takeError();
  texts = std::move(model->texts);
  all = std::move(model->tensors);
  remarks = std::move(model->notes);
  auto config = Config::parse(location + " (as config.json)", texts["config.json"]);
  if (!config)
    return config.takeError();
  configuration = std::move(*config);
  return sortTensors();
}

llvm::Error Checkpoint::openFolder() {
  auto configText = text("config.json");
  if (!configText)
    return configText.takeError();
  if (!*configText)
    return createStringError(location + ": expects config.json, found none");
  auto config = Config::parse(location + "/config.json", **configText);
  if (!config)
    return config.takeError();
  configuration = std::move(*config);

  std::vector<std::string> files;
  llvm::StringMap<std::string> fileOf;
  auto indexText = text("model.safetensors.index.json");
  if (!indexText)
    return indexText.takeError();
  if (*indexText) {
    std::string indexPath = location + "/model.safetensors.index.json";
    llvm::Expected<nlohmann::json> index = parseJson(indexPath, **indexText);
    if (!index)
      return index.takeError();
    if (!index->is_object() || !index->contains("weight_map") || !(*index)["weight_map"].is_object())
      return createStringError(indexPath + ": expects a JSON object with an object 'weight_map'");
    std::set<std::string> unique;
    for (auto &[tensor, file] : (*index)["weight_map"].items()) {
      if (!file.is_string() || !isFileName(file.get_ref<const std::string &>()))
        return createStringError(indexPath + ": expects the name of a file in the folder for '" + tensor + "'");
      unique.insert(file.get<std::string>());
      fileOf[tensor] = file.get<std::string>();
    }
    files.assign(unique.begin(), unique.end());
  } else {
    files = {"model.safetensors"};
  }
  for (const std::string &file : files) {
    std::string path = location + "/" + file;
    if (!fs::exists(path))
      return createStringError(path + ": expects this file of weights (or model.safetensors.index.json), found none");
    auto tensors = readSafetensorsHeader(path, paths.size());
    if (!tensors)
      return tensors.takeError();
    if (llvm::Error error = openWeights(path))
      return error;
    llvm::append_range(all, *tensors);
  }
  if (llvm::Error error = sortTensors())
    return error;
  for (auto &entry : fileOf) {
    const TensorInfo *tensor = find(entry.first());
    if (!tensor || llvm::sys::path::filename(paths[tensor->file]) != entry.second)
      return createStringError(location + "/" + entry.second + ": expects tensor '" + entry.first() +
                               "' as the index says, found none");
  }
  return llvm::Error::success();
}

llvm::Error Checkpoint::sortTensors() {
  llvm::sort(all, [](auto &a, auto &b) { return a.name < b.name; });
  for (size_t i = 1; i < all.size(); ++i)
    if (all[i - 1].name == all[i].name)
      return createStringError(paths[all[i].file] + ": tensor '" + all[i].name + "' is also in " +
                               paths[all[i - 1].file]);
  return llvm::Error::success();
}

const TensorInfo *Checkpoint::find(llvm::StringRef name) const {
  auto found =
      llvm::lower_bound(all, name, [](const TensorInfo &tensor, llvm::StringRef key) { return tensor.name < key; });
  return found != all.end() && found->name == name ? &*found : nullptr;
}

llvm::Error Checkpoint::read(const TensorInfo &tensor, uint64_t offset, llvm::MutableArrayRef<uint8_t> target) const {
  if (offset > tensor.size || target.size() > tensor.size - offset)
    return createStringError(paths[tensor.file] + ": read past the end of tensor '" + tensor.name + "'");
  for (size_t done = 0; done < target.size();) {
    ssize_t count =
        ::pread(handles[tensor.file], target.data() + done, target.size() - done, tensor.offset + offset + done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return createStringError(paths[tensor.file] + ": tensor '" + tensor.name +
                               "': " + (count ? std::strerror(errno) : "the file ends early"));
    done += count;
  }
  return llvm::Error::success();
}

} // namespace freeport::checkpoint
