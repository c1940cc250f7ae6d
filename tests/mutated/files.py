"""Mistakes in reading files of tensors."""

from .target import Target

TARGETS = [
    Target(
        "trainer/models/files/safe_file.py",
        ("test_safe_file.py", "test_safe_file_memory.py"),
        {
            "rows from the first on": ("file.seek(entry.start + start)", "file.seek(entry.start)"),
            "all rows for some": ("(sum(map(len, ranges)), *entry.shape[1:]) if rows", "entry.shape if rows"),
            "offsets from the file's start": ("first + start, first + end)", "start, end)"),
            "one read is enough": ("        view = view[count:]\n", "        return\n"),
            "gaps pass": ("entry.start != first or ", ""),
            "any number of bytes": ("entry.end - entry.start != needed or ", ""),
            "a file may end early": ("    if first != size:", "    if first < size:"),
            "a file may be longer": ("    if first != size:", "    if first > size:"),
            "negative sizes": (" and n >= 0 for", " for"),
            "halves of rows": ("type(n) is int and ", ""),
            "headers of any length": ("if not 2 <= length <= min(LONGEST, version[0] - LENGTH):", "if False:"),
            "deep headers uncaught": ("KeyError, RecursionError)", "KeyError)"),
            "strange entries uncaught": ("ValueError, TypeError, AttributeError,", "ValueError, AttributeError,"),
            "metadata lost": ("return tensors, dict(header.metadata)", "return tensors, {}"),
            "bits of another kind": ('"U16": "uint16"', '"U16": "int16"'),
            "a buffer for all": (
                "values = torch.empty(shape, dtype=dtype",
                "values = torch.empty((2, *shape), dtype=dtype",
            ),
            "libraries map": ("tensor.data = tensor.data.clone()", "pass"),
        },
    ),
    Target(
        "trainer/models/files/safe_tensor.py",
        ("test_safe_file.py",),
        {
            "a changed file is read": ("if written(file) != self.written:", "if False:"),
            "a removed file uncaught": (
                "except (OSError, DamagedFile) as error:\n            raise ModelError(f",
                "except DamagedFile as error:\n            raise ModelError(f",
            ),
            "all rows for some": ("read_values(file, self.entry, rows)", "read_values(file, self.entry)"),
        },
    ),
    Target(
        "trainer/models/files/safe_file.py",
        ("test_loading_memory.py",),
        {
            "everything twice": (
                "    return values\n",
                "    _kept.append(values.clone())\n    return values\n\n\n_kept = []\n",
            )
        },
    ),
    Target(
        "trainer/rewards/tensor_files.py",
        ("test_safe_file_memory.py",),
        {"checkpoints stay mapped": ("weights_only=True)", "weights_only=True, mmap=True)")},
    ),
    Target(
        "trainer/models/files/source.py",
        ("test_safe_file_memory.py",),
        {"libraries map": ("        unmap(model)\n", "")},
    ),
    Target(
        "trainer/rewards/clip_files.py",
        ("test_safe_file_memory.py",),
        {"the library maps": ("    unmap(model)\n", "")},
    ),
    Target(
        "trainer/rewards/references.py",
        ("test_safe_file_memory.py",),
        {"the library maps": ("        unmap(model)\n", "")},
    ),
    Target(
        "trainer/training/checkpoint.py",
        ("test_checkpoint.py", "test_resumed_memory.py"),
        {"the optimiser keeps a checkpoint's tensors": ("value.to(device, copy=True)", "value.to(device)")},
    ),
]
