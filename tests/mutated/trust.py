"""Nothing that was computed is lost: folders, locks, checkpoints, signals, what machines do."""

from .target import Target

TARGETS = (
    Target(
        "trainer/lock.py",
        ("test_lock.py",),
        {
            "no patience with who looks": ("time.monotonic() + PATIENCE)", "time.monotonic())"),
            "a lock on a file that is gone": ("if _is_at(file, path):", "if True:"),
            "left behind": ("                path.unlink()", "                pass"),
            "only for who may write": ("        return open(path, opener=_plainly)", "        raise"),
            "no lease is looked at": ("and is_alive(_lease_of(path))", "and False"),
            "a lease is kept for ever": ("                lease.end()", "                pass"),
        },
    ),
    Target(
        "trainer/lease.py",
        ("test_lock.py",),
        {
            "never stale": ("age < STALE and", "True and"),
            "a dead process has it": ("and not (here and _is_gone(pid))", ""),
            "never touched": ("                os.utime(self.path)", "                pass"),
            "two at once": ("if is_alive(path):", "if False:"),
        },
    ),
    Target(
        "trainer/faults.py",
        ("test_safety.py",),
        {
            "a mistake is a fault": ("        if not is_fault(error):\n            raise\n", ""),
            "safetensors says nothing": ("return int(digits) if digits.isdigit() else 0", "return 0"),
            "no place": ('"filename", None) or place', '"filename", None)'),
            "the whole path": ("if len(path) <= LONGEST else", "if True else"),
        },
    ),
    Target(
        "trainer/files.py",
        ("test_safety.py", "test_checkpoint.py"),
        {
            "denied once is denied": ("if last:", "if True:"),
            "a name that is taken": (
                "for name in names if remove(name))",
                "for name in names if remove(name) or True)",
            ),
            "removing ends work": ("    with suppress(OSError):\n        if path", "    if True:\n        if path"),
        },
    ),
    Target(
        "trainer/training/checkpoint.py",
        ("test_checkpoint.py",),
        {
            "tensors unchecked": ("if _digest(path / _file(name)) != digest:", "if False:"),
            "state.json unchecked": ("if digest not in (None, _digest_of(state)):", "if False:"),
            "a newer one is read": ("if version > FORMAT:", "if False:"),
            "without a digest it is old": ("if digest is None and version:", "if False:"),
            "the second name is unknown": ("(?:-\\d+)?", ""),
            "partial ones stay": (', *folder.glob(f"*{PARTIAL}*")]', "]"),
            "in silence": ("        for line in damaged:", "        for line in ():"),
        },
    ),
    Target(
        "trainer/store/database.py",
        ("test_database.py",),
        {
            "no journal but the log": ('((address, "WAL"), (address, "DELETE"), ', '((address, "WAL"), '),
            "shared memory all the same": (
                'execute("PRAGMA locking_mode = EXCLUSIVE")',
                'execute("PRAGMA cache_size")',
            ),
            "never without locks": ('?nolock=1", "DELETE"', '", "DELETE"'),
            "damage unseen": ('return "" if found == "ok" else str(found)', 'return ""'),
            "one set aside over the other": ("if not name.exists())", "if True)"),
            "its log is left": ('BESIDE = ("", "-wal", ', 'BESIDE = ("", '),
        },
    ),
    Target(
        "trainer/store/writer.py",
        ("test_database.py",),
        {
            "a newer one is rewritten": ("if (version := version_of(database)) > VERSION:", "if False:"),
            "broken changes": (
                "        except TypeError:\n            return []",
                "        except KeyError:\n            return []",
            ),
        },
    ),
    Target(
        "trainer/training/safety.py",
        ("test_safety.py", "test_run.py"),
        {
            "a hole": ('file.write(b"\\0" * min(BLOCK, size - start))', "file.seek(min(start + BLOCK, size))"),
            "one file": ("for n in range(1, FILES):", "for n in ():"),
            "kept": ("    finally:\n        reserve.give_back()", "    finally:\n        pass"),
            "the folder stays": ("if not begun and before != folder:", "if False:"),
            "a folder of the user goes": ("if not begun and before != folder:", "if not begun:"),
        },
    ),
    Target(
        "trainer/training/loop.py",
        ("test_signals.py", "test_run.py", "test_loop_faults.py"),
        {
            "nothing is rescued": ("                self.rescue()\n                raise", "                raise"),
            "no deadline": ("if control.overdue:", "if False:"),
            "told is not done": ("        state.iteration += 1\n    metrics", "    metrics"),
        },
    ),
    Target(
        "trainer/cli/terminal.py",
        ("test_signals.py",),
        {
            "nohup is not heard": ("if handler != signal.SIG_IGN]", "]"),
            "always the same code": ("self.code = 128 + number", "self.code = 130"),
            "a person has no time": ("math.inf if number == signal.SIGINT else GRACE", "GRACE"),
            "all the time of the world": ("math.inf if number == signal.SIGINT else GRACE", "math.inf"),
            "handlers stay": ("            signal.signal(number, previous[number])", "            pass"),
        },
    ),
)
