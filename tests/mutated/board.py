"""Mistakes in reading runs, in the board that shows them, and in the report."""

from .target import Target

TARGETS = [
    Target(
        "trainer/lock.py",
        ("test_lock.py",),
        {
            "looks like an owner": ("fcntl.LOCK_SH", "fcntl.LOCK_EX"),
            "nobody is ever seen": (
                "        return True\n    except OSError",
                "        return False\n    except OSError",
            ),
        },
    ),
    Target(
        "trainer/store/reader.py",
        (
            "test_history.py",
            "test_history_keeping.py",
        ),
        {
            "not of one moment": ('database.execute("BEGIN")', "pass"),
            "old stores unreadable": ("if not found.keys() >= names.keys():", "if False:"),
            "one iteration less": ("max((n + 1 for n in last", "max((n for n in last"),
            "the log from its end": (
                "for _, iteration, message in sorted(rows)]",
                "for _, iteration, message in sorted(rows)[::-1]]",
            ),
            "the first name only": (
                "UNION ALL",
                "UNION ALL SELECT NULL WHERE 0 UNION ALL SELECT NULL WHERE found = '' OR",
            ),
        },
    ),
    Target(
        "trainer/store/reader.py",
        ("test_history_curves.py",),
        {
            "buckets from the first iteration": (
                "iteration / {step}",
                "(iteration - {first}) / {step} + {first // step}",
            ),
            "infinite values count": ("AND value > -{LARGEST} AND value < {LARGEST}", ""),
            "the last iteration is left out": ("iteration BETWEEN ? AND ?", "iteration >= ? AND iteration < ?"),
        },
    ),
    Target(
        "trainer/store/database.py",
        (
            "test_history.py",
            "test_history_keeping.py",
        ),
        {
            "writes": ("?mode=ro", "?mode=rw"),
            "a store comes back": (
                'address = f"{path.absolute().as_uri()}?mode=rw"',
                'address = f"{path.absolute().as_uri()}?mode=rwc"',
            ),
            "a locked store is broken for good": ("later=busy)", "later=False)"),
            "a folder that cannot be written": ('("unable to open", "readonly")', "()"),
        },
    ),
    Target(
        "trainer/store/facts.py",
        ("test_history.py", "test_history_keeping.py"),
        {
            "no JSON breaks the run": ("except (ValueError, TypeError, RecursionError):", "except RecursionError:"),
            "infinity is a number": ("or not abs(value) <= LARGEST:", "or False:"),
        },
    ),
    Target(
        "trainer/history/curves.py",
        ("test_history_curves.py",),
        {
            "a gap is nothing": ("[None] * count", "[0.0] * count"),
            "low and high change places": (
                "finite(min(max(average, least), most)), least, most",
                "finite(min(max(average, least), most)), most, least",
            ),
            "one bucket too many": ("+ 1 > points:", "> points:"),
            "steps of three": ("step *= 2", "step *= 3"),
            "x is the bucket's number": ("[n * step for n", "[n for n"),
            "bands of single values": ("low if step > 1 else None", "low"),
        },
    ),
    Target(
        "trainer/history/projection.py",
        ("test_history_curves.py",),
        {
            "distances not squared": (".astype(np.float64) ** 2", ".astype(np.float64)"),
            "not centred": ("np.eye(size) - 1 / size", "np.eye(size)"),
            "half forgotten": ("-0.5 *", "-1.0 *"),
            "the smallest components": ("variances[::-1].clip(min=0), axes[:, ::-1]", "variances.clip(min=0), axes"),
            "signs by chance": ("axes * np.sign(", "axes * -np.sign("),
            "standard deviations as shares": ("variances[:2] / total", "np.sqrt(variances[:2] / total)"),
            "axes of one length": ("(axes * np.sqrt(variances))", "(axes * 1.0)"),
        },
    ),
    Target(
        "trainer/history/groups.py",
        ("test_history.py", "test_history_keeping.py", "test_history_curves.py"),
        {
            "scores of the neighbour": ("scores[slot, candidate],", "scores[slot, candidate - 1],"),
            "another size of group": ("or len(raw) != 4 * size * size", ""),
            "big-endian": ('"<f4"', '">f4"'),
        },
    ),
    Target(
        "trainer/history/runs.py",
        ("test_history.py", "test_history_keeping.py", "test_board.py"),
        {
            "hidden runs": ('or name.startswith(".")', ""),
            "links out": (
                "(folder / DATABASE).resolve(strict=True) == folder / DATABASE",
                "(folder / DATABASE).exists()",
            ),
            "oldest first": ("s.id), reverse=True)", "s.id))"),
            "a dead run runs": ("    if not live:\n        return INTERRUPTED\n", ""),
            "a wait with its reason is an end": ("if kind_of(state) not in AT_WORK:", "if state not in AT_WORK:"),
            "never live": ("return held(str(folder.absolute()))", "return False"),
            "a summary from long ago": (
                "if isinstance(found, Summary) and of == mark:",
                "if isinstance(found, Summary):",
            ),
            "held out is trained": ("for label, held_out in labels if not held_out", "for label, held_out in labels"),
            "all of the log": ("log(store, LOG_LINES)", "log(store)"),
        },
    ),
    Target(
        "trainer/history/housekeeping.py",
        (
            "test_history.py",
            "test_history_keeping.py",
        ),
        {
            "over what is there": ("if os.path.lexists(target):", "if False:"),
            "into a linked trash": ("if trash.is_symlink():", "if False:"),
            "moved while it is trained": ("with exclusive(str(folder.absolute()),", "with exclusive('another',"),
        },
    ),
    Target(
        "trainer/history/export.py",
        (
            "test_history.py",
            "test_history_keeping.py",
        ),
        {
            "columns shifted": ("for name in names)])", "for name in [*names[1:], names[0]])])"),
            "NaN in JSON": ("[[iteration, finite(value)]", "[[iteration, value]"),
        },
    ),
    Target(
        "trainer/board/answers.py",
        ("test_board_changes.py", "test_board_paths.py", "test_board.py"),
        {
            "forms may change things": ('if request.content_type != "application/json":', "if False:"),
            "any size": ("if len(raw) > BODY:", "if False:"),
            "any keys": ("or not set(found) <= set(keys)", ""),
            "out of range": ("or not low <= int(text) <= high", ""),
            "digits of all scripts": ('re.fullmatch("[0-9]{1,9}", text)', "text.isdigit()"),
            "a locked store is for good": ("case StoreError(later=True):", "case StoreError(later=3):"),
            "a failure tells its details": ("type(failure).__name__", "failure"),
            "kept as ComfyUI likes": ('{hdrs.CACHE_CONTROL: "no-cache", **CLOSED}', "CLOSED"),
            "waits forever": ("_read(request), BODY_TIMEOUT", "_read(request), None"),
        },
    ),
    Target(
        "trainer/board/control.py",
        ("test_board_changes.py",),
        {
            "true is a number": ("and not isinstance(value, bool)", ""),
            "any height": ("replace(setting, most=highest)", "setting"),
            "any method": ("if action not in ACTIONS:", "if False:"),
            "values with any action": ('if bool(values) != (action == "change"):', "if False:"),
            "two lines": ('("Cc", "Cs", "Zl", "Zp")', '("Cs",)'),
            "any length": ("len(title) > TITLE_LENGTH or", ""),
        },
    ),
    Target(
        "trainer/board/routes.py",
        ("test_board.py", "test_board_changes.py", "test_board_paths.py"),
        {
            "on the event loop": (
                "await asyncio.get_running_loop().run_in_executor(self.readers, function)",
                "function()",
            ),
            "pages overlap": ("found[offset : offset + limit]", "found[offset : offset + limit + 1]"),
            "total of the page": ('"total": len(found)', '"total": len(page)'),
            "every run can be told": ("summary.id in self.controls}", "True}"),
            "404 for another method": ("if not allowed:", "if True:"),
            "backwards": ("if last < first:", "if False:"),
            "nothing found is an answer": ("    if not found:\n        raise", "    if False:\n        raise"),
            "the slot of the candidate": (
                "candidate_tile(store, iteration, slot, candidate)",
                "candidate_tile(store, iteration, candidate, slot)",
            ),
        },
    ),
    Target(
        "trainer/board/files.py",
        ("test_board.py",),
        {
            "kept forever": ("FRESH = 60", "FRESH = 6000"),
            "a picture is anything": ('hdrs.CONTENT_TYPE: "image/webp"', 'hdrs.CONTENT_TYPE: "text/html"'),
        },
    ),
    Target(
        "trainer/board/events.py",
        ("test_board_events.py",),
        {
            "everything is kept": ("asyncio.Queue(PENDING)", "asyncio.Queue()"),
            "the newest are lost": (
                "queue.get_nowait()\n            queue.put_nowait(message)",
                "continue\n            queue.put_nowait(message)",
            ),
            "who has left stays": ("self.queues.discard(queue)", "pass"),
            "any number": ("if len(self.queues) >= CLIENTS:", "if False:"),
        },
    ),
    Target(
        "trainer/board/watch.py",
        ("test_board_events.py",),
        {
            "iterations twice": ("max(known, done - BURST)", "done - BURST"),
            "all of them": ("max(known, done - BURST)", "known"),
            "new runs never": ("if everything else active:", "if first else active:"),
            "what was there before is news": ("[] if first or new is old else", "[] if new is old else"),
            "the end is a state": ("if old.live and not new.live:", "if False:"),
            "starts where it stood": ("min(done, old.iteration) if old else done", "old.iteration if old else done"),
        },
    ),
    Target(
        "trainer/board/live.py",
        ("test_board_events.py",),
        {
            "the end too early": ("self.finished = event", 'self.tell("finished", event, state=event.state)'),
            "a pause goes unseen": ("case _ if event.state is not None:", "case _ if event.state in ():"),
        },
    ),
    Target(
        "trainer/board/app.py",
        ("test_board_app.py",),
        {"framed": ("frame-ancestors 'none'; ", "")},
    ),
    Target(
        "trainer/board/origins.py",
        ("test_board_app.py", "test_board_events.py", "test_origins.py"),
        {
            "any name": ("if name not in names and not is_address(name):", "if False:"),
            "any origin": ("if origin is not None and named(origin).netloc != request.host:", "if False:"),
            "another port's pages": ("named(origin).netloc != request.host", "named(origin).hostname != name"),
            "requests from elsewhere": ('.get(SITE) == "cross-site":', '.get(SITE) == "nowhere":'),
            "any name behind a proxy": ("if local and not known and site is None:", "if False:"),
            "any origin behind a proxy": ("    elif site not in", "    elif False and site not in"),
            "a form of another page": ('site in ("cross-site", "same-site")', "False"),
        },
    ),
    Target(
        "trainer/store/foreign.py",
        ("test_hostile_runs.py",),
        {
            "pipes are waited for": ("if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):", "if False:"),
            "views run": ("if (text is not None and not str(text).startswith(STARTS)) or not root:", "if False:"),
            "computed columns": ("            if hidden:", "            if False:"),
            "values of any length": ('    _set_limit(database, "LENGTH", most)', "    pass"),
            "journals delete": ("return file.read() == ENDING", "return False"),
        },
    ),
    Target(
        "trainer/history/picture.py",
        ("test_history.py", "test_hostile_runs.py"),
        {
            "pictures from anywhere": ("and path.is_relative_to(folder.resolve()) else", "else"),
            "any file is a picture": ("or not relative.endswith(PICTURE)", ""),
            "of any size": ("and found.st_size <= BYTES", ""),
            "of any width": ("if size and max(size) <= EDGE else", "if size else"),
        },
    ),
    Target(
        "trainer/report/html.py",
        ("test_report.py",),
        {
            "texts as they are": ("else escape(str(child))", "else str(child)"),
            "attributes as they are": ("{escape(str(value))}", "{value}"),
        },
    ),
    Target(
        "trainer/report/chart.py",
        ("test_report.py",),
        {
            "gaps are bridged": ("elif part:", "elif False:"),
            "upside down": ("Scale(low, high, HEIGHT - BOTTOM, TOP)", "Scale(low, high, TOP, HEIGHT - BOTTOM)"),
            "stretched": ("(value - self.low) / (self.high - self.low)", "value / self.high"),
            "the band's back forwards": ("for i, lo, _ in reversed(part)", "for i, lo, _ in part"),
            "odd ticks": ("for m in (1, 2, 5, 10)", "for m in (1, 3, 7, 10)"),
            "no room": ("else 0.05 * size or 1", "else 0"),
        },
    ),
    Target(
        "trainer/report/pictures.py",
        ("test_report.py",),
        {
            "any size": ("if path.stat().st_size > self.left:", "if False:"),
            "not counted": ("self.left_out += 1", "pass"),
        },
    ),
]
