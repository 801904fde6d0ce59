"""The full DeepSeek-V3 graph, 61 layers with 256 experts each, must import and lower in little time and memory. Its 671 GB
of weights are files that are one hole behind a true header: a compiler that reads no weight does not notice."""

import json
import os
import struct
import subprocess

import make_bench_checkpoint
from command import FREEPORT

PROCESSOR_SECONDS, PEAK_MEMORY = 20, 1_000_000_000


class SparseWriter(make_bench_checkpoint.Writer):
    def finish(self):
        """Writes every shard's header and leaves the data a hole; returns the apparent size in bytes."""
        place, shard, size, total = {}, {}, 0, 0
        for name, dtype, shape, _ in self.items + [(None, None, None, None)]:
            count = self.SIZE.get(dtype, 0)
            for extent in shape or []:
                count *= extent
            if shard and (name is None or size + count > self.shard_bytes):
                file = f"model-{len(set(place.values())) + 1:05}.safetensors"
                raw = json.dumps(shard).encode()
                raw += b" " * (-len(raw) % 8)
                with open(os.path.join(self.out, file), "wb") as output:
                    output.write(struct.pack("<Q", len(raw)) + raw)
                    output.truncate(8 + len(raw) + size)
                place.update(dict.fromkeys(shard, file))
                total += size
                shard, size = {}, 0
            if name is not None:
                shard[name] = {"dtype": dtype, "shape": shape, "data_offsets": [size, size + count]}
                size += count
        with open(os.path.join(self.out, "model.safetensors.index.json"), "w", encoding="utf-8") as output:
            json.dump({"metadata": {"total_size": total}, "weight_map": place}, output)
        return total


def test_full_deepseek_v3_lowers(tmp_path):
    folder = tmp_path / "dsv3"
    folder.mkdir()
    config = dict(make_bench_checkpoint.DSV3, torch_dtype="bfloat16")
    writer = SparseWriter(str(folder), 5_000_000_000)
    make_bench_checkpoint.deepseek(writer, config, fp8=True)
    (folder / "config.json").write_text(json.dumps(config))
    assert writer.finish() > 650e9
    stages = tmp_path / "stages"
    process = subprocess.Popen([FREEPORT, "compile", folder, "-o", tmp_path / "model.port", "--stop-after", "launch",
                                "--dump-stages", stages], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    message = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, message
    assert not (tmp_path / "model.port").exists()
    assert usage.ru_maxrss * 1024 < PEAK_MEMORY, f"{usage.ru_maxrss / 1e6:.2f} GB"
    assert usage.ru_utime + usage.ru_stime < PROCESSOR_SECONDS
    text = (stages / "3-launch.mlir").read_text(encoding="utf-8")
    # The number of kernels depends on distinct shapes, not on layers.
    assert 0 < text.count("kernel.func") < 100 < text.count("launch.dispatch")
