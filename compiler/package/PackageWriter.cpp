// Offsets of all parameters are known before the first is packed. Chunks of row blocks are packed in parallel and
// written in order; memory is bounded by the chunk, not by the tensor.
#include "compiler/package/PackageWriter.h"
#include "compiler/package/BlockPacker.h"
#include "runtime/package_header.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <tbb/enumerable_thread_specific.h>
#include <tbb/parallel_pipeline.h>
#include <xxhash.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <sys/file.h>
#include <unistd.h>

namespace freeport {

using llvm::createStringError;
namespace fs = llvm::sys::fs;

static uint64_t alignTo(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

PackageWriter::PackageWriter(PackageWriter &&other)
    : path(std::move(other.path)), temporary(std::move(other.temporary)), handle(other.handle), end(other.end) {
  other.handle = -1;
}

PackageWriter::~PackageWriter() {
  if (handle < 0)
    return;
  ::unlink(temporary.c_str());
  ::close(handle);
}

llvm::Error PackageWriter::ioError(llvm::StringRef what) const {
  return createStringError(path + ": " + what + ": " + std::strerror(errno));
}

llvm::Expected<PackageWriter> PackageWriter::create(llvm::StringRef path) {
  PackageWriter writer;
  writer.path = path.str();
  if (fs::is_directory(path))
    return createStringError(path + ": expects the name of a file to write, got a folder");
  llvm::SmallString<256> folder = llvm::sys::path::parent_path(path);
  if (folder.empty())
    folder = ".";
  std::string stem = ("." + llvm::sys::path::filename(path) + ".").str();
  // A temporary whose lock can be had belongs to a compile that was killed.
  std::error_code code;
  for (fs::directory_iterator it(folder, code), last; !code && it != last; it.increment(code)) {
    llvm::StringRef name = llvm::sys::path::filename(it->path());
    if (!name.starts_with(stem) || !name.ends_with(".partial"))
      continue;
    int stale = ::open(it->path().c_str(), O_RDWR | O_CLOEXEC);
    if (stale >= 0 && ::flock(stale, LOCK_EX | LOCK_NB) == 0)
      ::unlink(it->path().c_str());
    if (stale >= 0)
      ::close(stale);
  }
  writer.temporary = (folder + "/" + stem + llvm::Twine(::getpid()) + ".partial").str();
  writer.handle = ::open(writer.temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (writer.handle < 0)
    return writer.ioError("cannot create the output");
  ::flock(writer.handle, LOCK_EX | LOCK_NB);
  writer.end = sizeof(PackageHeader);
  return std::move(writer);
}

llvm::Error PackageWriter::write(uint64_t offset, const void *bytes, size_t size) {
  auto *data = static_cast<const char *>(bytes);
  while (size) {
    ssize_t count = ::pwrite(handle, data, size, offset);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return ioError("cannot write the output");
    data += count;
    offset += count;
    size -= count;
  }
  return llvm::Error::success();
}

/// Pieces of 2 MiB at multiples of 2 MiB: the page cache then holds them as large pages, where whoever runs the package
/// right after meets them (docs/performance.md).
static constexpr uint64_t kPieceBytes = uint64_t(2) << 20;

llvm::Error PackageWriter::append(uint64_t offset, llvm::ArrayRef<uint8_t> bytes) {
  if (pending.empty())
    pendingOffset = offset;
  pending.resize(offset - pendingOffset);
  while (!bytes.empty()) {
    size_t count = std::min<uint64_t>(kPieceBytes - (pendingOffset + pending.size()) % kPieceBytes, bytes.size());
    pending.insert(pending.end(), bytes.begin(), bytes.begin() + count);
    bytes = bytes.drop_front(count);
    if ((pendingOffset + pending.size()) % kPieceBytes == 0)
      if (llvm::Error error = flush())
        return error;
  }
  return llvm::Error::success();
}

llvm::Error PackageWriter::flush() {
  if (llvm::Error error = write(pendingOffset, pending.data(), pending.size()))
    return error;
  pendingOffset += pending.size();
  pending.clear();
  return llvm::Error::success();
}

namespace {

/// Reads floats of one entry's rows, wherever its pieces lie.
class EntryReader {
public:
  EntryReader(const checkpoint::Checkpoint &checkpoint, const std::vector<Piece> &pieces)
      : checkpoint(checkpoint), pieces(pieces) {}

  /// Rows first .. first + count - 1 into `target`, `stride` floats apart.
  llvm::Error read(int64_t first, int64_t count, int64_t inputs, float *target, int64_t stride) const {
    int64_t begin = 0;
    for (const Piece &piece : pieces) {
      const checkpoint::TensorInfo *tensor = checkpoint.find(piece.tensor);
      if (!tensor)
        return createStringError("internal error: no tensor '" + piece.tensor + "'");
      if (tensor->dtype == checkpoint::DataType::F8_E4M3)
        return createStringError("tensor '" + piece.tensor +
                                 "': FP8 checkpoints import, but packing them is not supported yet; "
                                 "convert the checkpoint to BF16");
      int64_t columns = tensor->shape.size() == 2 ? tensor->shape[1] : 1;
      int64_t pieceRows = piece.transposed ? columns : piece.rows;
      int64_t from = std::max(first, begin), to = std::min(first + count, begin + pieceRows);
      uint64_t rowBytes = byteSize(tensor->dtype, columns);
      if (from < to && !piece.transposed) {
        std::vector<uint8_t> raw((to - from) * rowBytes);
        if (llvm::Error error = checkpoint.read(*tensor, (piece.firstRow + from - begin) * rowBytes, raw))
          return error;
        for (int64_t row = from; row < to; ++row)
          widen(tensor->dtype, raw.data() + (row - from) * rowBytes, inputs, target + (row - first) * stride);
      } else if (from < to) {
        std::vector<uint8_t> raw(piece.rows * rowBytes);
        std::vector<float> values(piece.rows * columns);
        if (llvm::Error error = checkpoint.read(*tensor, piece.firstRow * rowBytes, raw))
          return error;
        widen(tensor->dtype, raw.data(), values.size(), values.data());
        for (int64_t row = from; row < to; ++row)
          for (int64_t k = 0; k < piece.rows; ++k)
            target[(row - first) * stride + k] = values[k * columns + row - begin];
      }
      begin += pieceRows;
    }
    return llvm::Error::success();
  }

  /// The quantised type of all pieces where `format` holds it as it is.
  std::optional<checkpoint::DataType> movable(kernel::BlockFormat format) const {
    std::optional<checkpoint::DataType> type;
    for (const Piece &piece : pieces) {
      const checkpoint::TensorInfo *tensor = checkpoint.find(piece.tensor);
      if (!tensor || piece.transposed || !isQuantized(tensor->dtype) || nativeFormat(tensor->dtype) != format ||
          (type && type != tensor->dtype))
        return std::nullopt;
      type = tensor->dtype;
    }
    return type;
  }
  /// The bytes of rows first .. first + count - 1, each of `rowBytes`.
  llvm::Error readBytes(int64_t first, int64_t count, uint64_t rowBytes, std::vector<uint8_t> &target) const {
    target.resize(count * rowBytes);
    int64_t begin = 0;
    for (const Piece &piece : pieces) {
      int64_t from = std::max(first, begin), to = std::min(first + count, begin + piece.rows);
      llvm::MutableArrayRef<uint8_t> part(target);
      if (from < to)
        if (llvm::Error error =
                checkpoint.read(*checkpoint.find(piece.tensor), (piece.firstRow + from - begin) * rowBytes,
                                part.slice((from - first) * rowBytes, (to - from) * rowBytes)))
          return error;
      begin += piece.rows;
    }
    return llvm::Error::success();
  }

private:
  const checkpoint::Checkpoint &checkpoint;
  const std::vector<Piece> &pieces;
};

/// Some row blocks of one entry: what one task packs.
struct Chunk {
  size_t plan;
  size_t entry;
  int64_t firstBlock, blocks;
  uint64_t offset, bytes;
};

} // namespace

llvm::Expected<std::vector<Place>> PackageWriter::writeWeights(llvm::ArrayRef<ParameterPlan> plans,
                                                               const checkpoint::Checkpoint &checkpoint,
                                                               llvm::function_ref<bool(uint64_t, uint64_t)> progress) {
  end = alignTo(end, kSegmentAlignment);
  std::vector<Place> places(plans.size());
  auto entryBytes = [](const ParameterPlan &plan) -> uint64_t {
    if (plan.shape.size() == 1)
      return alignTo(plan.shape[0] * 4, 64);
    int64_t rows = plan.shape[plan.shape.size() - 2], inputs = plan.shape.back();
    return kernel::matrixBytes(plan.format, rows, inputs);
  };
  // Places: a record's banks side by side, each record padded to 4 KiB; all else one after the other.
  llvm::StringMap<uint64_t> recordBytes, recordStart;
  for (const ParameterPlan &plan : plans)
    if (!plan.record.empty())
      recordBytes[plan.record] += entryBytes(plan);
  llvm::StringMap<uint64_t> recordFilled;
  for (auto [plan, place] : llvm::zip(plans, places)) {
    place.entrySize = place.entryStride = entryBytes(plan);
    uint64_t entries = plan.shape.size() == 3 ? plan.shape[0] : 1;
    if (plan.record.empty()) {
      place.offset = end = alignTo(end, plan.shape.size() == 3 ? 4096 : 64);
      end += entries * place.entryStride;
      continue;
    }
    place.entryStride = kernel::recordStride(recordBytes[plan.record]);
    if (recordStart.try_emplace(plan.record, alignTo(end, 4096)).second)
      end = recordStart[plan.record] + entries * place.entryStride;
    place.offset = recordStart[plan.record] + recordFilled[plan.record];
    recordFilled[plan.record] += place.entrySize;
  }
  std::vector<Chunk> chunks;
  uint64_t total = 0;
  for (size_t number = 0; number < plans.size(); ++number) {
    const ParameterPlan &plan = plans[number];
    const Place &place = places[number];
    uint64_t entries = plan.shape.size() == 3 ? plan.shape[0] : 1;
    total += entries * place.entrySize;
    for (uint64_t entry = 0; entry < entries; ++entry) {
      uint64_t offset = place.offset + entry * place.entryStride;
      if (plan.shape.size() == 1) {
        chunks.push_back({number, entry, 0, 0, offset, place.entrySize});
        continue;
      }
      int64_t rows = plan.shape[plan.shape.size() - 2], inputs = plan.shape.back();
      int64_t blockCount = (rows + 31) / 32;
      uint64_t blockBytes = kernel::matrixBytes(plan.format, 32, inputs);
      // About a million weights a chunk; transposed pieces are read whole each time, so they are not cut.
      int64_t step =
          plan.entries[entry].front().transposed ? blockCount : std::max<int64_t>(1, (1 << 20) / (32 * inputs));
      for (int64_t first = 0; first < blockCount; first += step) {
        int64_t count = std::min(step, blockCount - first);
        chunks.push_back({number, entry, first, count, offset + first * blockBytes, count * blockBytes});
      }
    }
  }
  // As they lie in the file, which keeps each parameter's order, that of its checksum.
  llvm::sort(chunks, [](const Chunk &left, const Chunk &right) { return left.offset < right.offset; });
  std::vector<XXH3_state_t *> hashes(plans.size());
  for (XXH3_state_t *&hash : hashes) {
    hash = XXH3_createState();
    XXH3_64bits_reset(hash);
  }
  auto freeHashes = llvm::make_scope_exit([&] {
    for (XXH3_state_t *hash : hashes)
      XXH3_freeState(hash);
  });

  // While chunks are packed, those before them are written. A chunk's place is free again when it has been written.
  struct Packed {
    std::vector<uint8_t> bytes;
    std::string problem;
  };
  constexpr size_t kInFlight = 16;
  std::vector<Packed> inFlight(kInFlight);
  tbb::enumerable_thread_specific<std::vector<float>> buffers; // fresh memory would be zeroed for each chunk
  size_t next = 0;
  uint64_t done = 0;
  std::atomic<bool> stopped = false;
  std::optional<llvm::Error> failure;
  auto pack = [&](size_t number) {
    const Chunk &chunk = chunks[number];
    const ParameterPlan &plan = plans[chunk.plan];
    Packed &packed = inFlight[number % kInFlight];
    if (plan.shape.size() == 1)
      packed.bytes.assign(chunk.bytes, 0); // the values and padding
    else
      packed.bytes.resize(chunk.bytes); // whole records
    uint8_t *out = packed.bytes.data();
    llvm::Error error = llvm::Error::success();
    if (plan.shape.size() == 1 && !plan.values.empty()) {
      std::memcpy(out, plan.values.data(), plan.values.size() * 4);
    } else if (plan.shape.size() == 1) {
      std::vector<float> values(plan.shape[0]);
      error = EntryReader(checkpoint, plan.entries[0]).read(0, plan.shape[0], 1, values.data(), 1);
      std::memcpy(out, values.data(), values.size() * 4);
    } else {
      int64_t rows = plan.shape[plan.shape.size() - 2], inputs = plan.shape.back(), stride = (inputs + 31) / 32 * 32;
      int64_t firstRow = 32 * chunk.firstBlock, rowCount = std::min(32 * chunk.blocks, rows - firstRow);
      uint64_t blockBytes = chunk.bytes / chunk.blocks;
      EntryReader reader(checkpoint, plan.entries[chunk.entry]);
      if (auto type = reader.movable(plan.format)) {
        uint64_t rowBytes = byteSize(*type, inputs);
        std::vector<uint8_t> raw;
        error = reader.readBytes(firstRow, rowCount, rowBytes, raw);
        for (int64_t block = 0; !error && block < chunk.blocks; ++block)
          moveRowBlock(*type, raw.data() + 32 * block * rowBytes, rowBytes,
                       std::min<int64_t>(32, rowCount - 32 * block), inputs, out + block * blockBytes);
      } else {
        std::vector<float> &values = buffers.local();
        values.resize(32 * chunk.blocks * stride);
        if (stride != inputs || rowCount != 32 * chunk.blocks) // what is not there is zero
          std::fill(values.begin(), values.end(), 0.0f);
        error = reader.read(firstRow, rowCount, inputs, values.data(), stride);
        for (int64_t block = 0; !error && block < chunk.blocks; ++block)
          packRowBlock(plan.format, values.data() + 32 * block * stride, stride, inputs, out + block * blockBytes);
      }
    }
    packed.problem = error ? llvm::toString(std::move(error)) : "";
    return number;
  };
  auto store = [&](size_t number) -> llvm::Error {
    const Chunk &chunk = chunks[number];
    const Packed &packed = inFlight[number % kInFlight];
    if (!packed.problem.empty())
      return createStringError(packed.problem);
    if (llvm::Error error = append(chunk.offset, packed.bytes))
      return error;
    XXH3_64bits_update(hashes[chunk.plan], packed.bytes.data(), packed.bytes.size());
    done += chunk.bytes;
    return progress(done, total) ? llvm::Error::success() : createStringError("cancelled");
  };
  auto take = [&](tbb::flow_control &control) {
    if (stopped || next == chunks.size())
      control.stop();
    return next++;
  };
  auto finishOne = [&](size_t number) {
    if (stopped)
      return;
    if (llvm::Error error = store(number)) {
      failure = std::move(error);
      stopped = true;
    }
  };
  tbb::parallel_pipeline(kInFlight, tbb::make_filter<void, size_t>(tbb::filter_mode::serial_in_order, take) &
                                        tbb::make_filter<size_t, size_t>(tbb::filter_mode::parallel, pack) &
                                        tbb::make_filter<size_t, void>(tbb::filter_mode::serial_in_order, finishOne));
  if (failure)
    return std::move(*failure);
  if (llvm::Error error = flush())
    return std::move(error);
  for (auto [place, hash] : llvm::zip(places, hashes))
    place.checksum = XXH3_64bits_digest(hash);
  return places;
}

llvm::Expected<FileSegment> PackageWriter::writeSegment(llvm::StringRef bytes) {
  FileSegment segment{alignTo(end, kSegmentAlignment), bytes.size(), XXH3_64bits(bytes.data(), bytes.size())};
  if (llvm::Error error = write(segment.offset, bytes.data(), bytes.size()))
    return std::move(error);
  end = segment.offset + segment.size;
  return segment;
}

llvm::Error PackageWriter::writeWeights(llvm::StringRef begin, llvm::function_ref<bool(uint64_t, uint64_t)> progress) {
  constexpr size_t kPiece = 16 << 20;
  for (size_t at = 0; at < begin.size(); at += kPiece) {
    llvm::StringRef piece = begin.substr(at, kPiece);
    if (llvm::Error error = write(at, piece.data(), piece.size()))
      return error;
    if (!progress(at + piece.size(), begin.size()))
      return createStringError("cancelled");
  }
  end = begin.size();
  return llvm::Error::success();
}

llvm::Error PackageWriter::truncate(uint64_t weightsEnd) {
  if (::ftruncate(handle, static_cast<off_t>(weightsEnd)) != 0)
    return ioError("cannot write the output");
  end = weightsEnd;
  return llvm::Error::success();
}

llvm::Error PackageWriter::seal(llvm::StringRef manifest) {
  llvm::Expected<FileSegment> segment = writeSegment(manifest);
  if (!segment)
    return segment.takeError();
  PackageHeader header = {};
  std::memcpy(header.magic, kPackageMagic, sizeof(header.magic));
  header.version = kPackageVersion;
  header.file_size = end;
  header.manifest_offset = segment->offset;
  header.manifest_size = segment->size;
  header.manifest_checksum = segment->checksum;
  header.header_checksum = XXH3_64bits(&header, offsetof(PackageHeader, header_checksum));
  return write(0, &header, sizeof(header));
}

llvm::Error PackageWriter::finish(llvm::StringRef manifest) {
  if (llvm::Error error = seal(manifest))
    return error;
  if (::fsync(handle) != 0)
    return ioError("cannot write the output");
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return ioError("cannot give the output its name");
  ::close(handle);
  handle = -1;
  return llvm::Error::success();
}

} // namespace freeport
