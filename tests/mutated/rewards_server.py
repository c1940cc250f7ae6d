"""Mistakes in the reward server, in the remote reward, and in the waiting for them."""

from .target import Target

TARGETS = [
    Target(
        "trainer/reward_server/batching.py",
        (
            "test_reward_server.py",
            "test_reward_server_queue.py",
            "test_reward_server_refusals.py",
        ),
        {
            "one bad request fails the others": ("if len(jobs) == 1:", "if jobs:"),
            "batches beyond the limit": (
                "<= self.batch_size):\n            job",
                "<= 10**9):\n            job",
            ),
            "a large request in one piece": ("at_once = min(self.batch_size,", "at_once = max(10**6,"),
            "large pictures as many as small ones": ("max(1, self.batch_pixels // (width * height))", "10**6"),
            "scored on for nobody": ("        if job.over:\n", "        if False:\n"),
            "kept for nobody": ("            pictures.drop()\n", "            pass\n"),
            "a broken picture scored": ("[job.refused or scores for", "[scores for"),
            "scores of the neighbour": ("found[j][name][i] = value", "found[j][name][-1 - i] = value"),
            "never together": ("self.waiting and (not batch or", "self.waiting and (not batch and"),
            "does not wait for more": ("await asyncio.sleep(self.window)", "await asyncio.sleep(0)"),
            "scored for nobody": ("if not job.answer.done():\n                batch", "if job:\n                batch"),
            "every reward whether wanted or not": ("(size, tuple(job.rewards))", "size"),
            "pictures of all sizes stacked": ("(size, tuple(job.rewards))", "tuple(job.rewards)"),
        },
    ),
    Target(
        "trainer/reward_server/admission.py",
        (
            "test_reward_server.py",
            "test_reward_server_queue.py",
            "test_reward_server_refusals.py",
        ),
        {
            "one too many": ("self.requests >= self.max_requests", "self.requests > self.max_requests"),
            "bytes never given back": ("self.bytes -= ticket.bytes", "pass"),
            "bytes uncounted": ("admission.bytes += size", "admission.bytes += 0"),
            "accepts while stopping": ("if self.stopping:", "if False:"),
            "an announced request counts": (
                "ticket = Ticket(self)\n",
                "ticket = Ticket(self)\n        self.requests += 1\n",
            ),
            "stops before what was accepted": ("if self.stopping and not self.requests:", "if self.stopping:"),
            "an idle server never stops": ("self.stopping = True\n        self._tell()", "self.stopping = True"),
        },
    ),
    Target(
        "trainer/reward_server/pictures.py",
        (
            "test_reward_server.py",
            "test_reward_server_queue.py",
            "test_reward_server_refusals.py",
        ),
        {
            "of 256": (".div_(255)", ".div_(256)"),
            "columns as rows": (".permute(2, 0, 1)", ".permute(2, 1, 0)"),
            "pixels unlimited": ("[file.content_type],), limits.pixels)", "[file.content_type],))"),
            "images unlimited": ("if len(files) > limits.images:", "if False:"),
            "any decoder": ("Reader((IMAGE_TYPES[file.content_type],), limits", "Reader(pixels=limits"),
            "16 bits cut to 8": ("if image.mode not in MODES or", "if"),
            "transparent parts on white": (" or image.has_transparency_data:", ":"),
        },
    ),
    Target(
        "trainer/reward_server/stored.py",
        ("test_reward_server.py", "test_reward_server_refusals.py"),
        {
            "images of a tensor unlimited": ("if len(file) > limits.images:", "if False:"),
            "pixels of a tensor unlimited": ("if width * height > limits.pixels:", "if False:"),
            "a tensor's range unchecked": (
                'check_images(out.copy_(pixels.view(out.shape))[None], [""])',
                "out.copy_(pixels.view(out.shape))",
            ),
            "always the first picture": ("self.begin + i * length", "self.begin"),
            "rows as columns": ("[(self.shape[3], self.shape[2])]", "[(self.shape[2], self.shape[3])]"),
            "a header that lies": ('if outline["data_offsets"] != [0, size] or', "if"),
        },
    ),
    Target(
        "trainer/reward_server/connections.py",
        ("test_reward_server_connections.py", "test_reward_server_queue.py"),
        {
            "the newest makes room": ("next(iter(self.idle), None)", "next(reversed(self.idle), None)"),
            "one address has all": ("if self.clients[client] >= self.most_of_client:", "if False:"),
            "any number": ("elif len(self.idle) + len(self.busy) >= self.most:", "elif False:"),
            "clients are never forgotten": ("self.clients[connection.client] -= 1", "pass"),
            "a silent one stays": ("self.loop.call_later(IDLE, self.hang_up)", "self.loop.call_later(IDLE, str)"),
            "those at work may have to go": (
                "            del self.idle[connection]\n            self.busy.add(connection)\n",
                "            pass\n",
            ),
            "the rest of a body is a head": ("(self.body is None or self.body.is_eof())", "True"),
            "a body on its way is cut off": ("        connection.rest()\n", ""),
        },
    ),
    Target(
        "trainer/reward_server/parsing.py",
        (
            "test_reward_server.py",
            "test_reward_server_queue.py",
            "test_reward_server_refusals.py",
        ),
        {
            "half characters pass": ('"\\ud800" <= c', '"\\uffff" <= c'),
            "unknown keys pass": (
                "sorted(set(value) - set(KEYS))",
                "sorted(set(KEYS) - set(KEYS))",
            ),
            "long bodies pass": ("if request.content_length > max_bytes:", "if False:"),
            "any number of images": ("if len(files) == max_images:", "if False:"),
            "a part of any size": ("if data.tell() + len(chunk) > most:", "if False:"),
            "bodies without a length pass": ("if request.content_length is None:", "if False:"),
            "all rewards whatever is asked": ("return list(dict.fromkeys(asked))", "return list(names)"),
            "a second request wins": (
                "elif wanted is None:",
                "else:\n                wanted = parse_json(data)\n            if False:",
            ),
        },
    ),
    Target(
        "trainer/reward_server/app.py",
        (
            "test_reward_server.py",
            "test_reward_server_queue.py",
            "test_reward_server_refusals.py",
        ),
        {
            "any token": ("if not hmac.compare_digest(given,", "if not given and not hmac.compare_digest(given,"),
            "health asks for a token": ('request.path != "/health"', 'request.path != "/"'),
            "NaN in JSON": ("s if math.isfinite(s) else None", "s"),
            "no Retry-After": ("if refused.retry_after else {}", "if False else {}"),
            "a body may take for ever": (
                "(left <= PATIENCE or ticket.bytes < before + LEAST)",
                "ticket.bytes < before + LEAST",
            ),
            "a body may come in drops": ("or ticket.bytes < before + LEAST)", ")"),
            "web pages may ask": ("if hdrs.ORIGIN in request.headers:", "if False:"),
            "health says ok to the end": ("status=503 if stopping else 200", "status=200"),
        },
    ),
    Target(
        "trainer/rewards/remote.py",
        ("test_remote_reward.py", "test_remote_faults.py", "test_remote_answers.py"),
        {
            "always one request": ("size = max(1, min(offer.images, room))", "size = len(pixels)"),
            "null is zero": ("if value is None:\n        return math.nan", "if value is None:\n        return 0.0"),
            "in half precision": ("images.detach().float().cpu()", "images.detach().half().float().cpu()"),
            "the first reward where several are": ("if not self.reward and len(names) != 1:", "if False:"),
            "pictures unchecked": ("        check_images(images, prompts)\n", ""),
            "words are numbers": ("if not isinstance(value, int | float):", "if False:"),
            "infinite in float32": (
                "if abs(score) <= torch.finfo(torch.float32).max else",
                "if abs(score) < math.inf else",
            ),
        },
    ),
    Target(
        "trainer/rewards/transport.py",
        ("test_remote_reward.py", "test_remote_faults.py", "test_remote_answers.py", "test_vlm_judge.py"),
        {
            "one try fewer": ("tries_left, pause = self.retries,", "tries_left, pause = self.retries - 1,"),
            "pauses do not grow": ("pause * 2", "pause"),
            "Retry-After ignored": ("max(again.after, backoff)", "backoff"),
            "Retry-After without an end": (
                "min(max(again.after, backoff), LONGEST_PAUSE)",
                "max(again.after, backoff)",
            ),
            "refusals tried again": ("if response.status != 200:", "if response.status != 200 and 0:"),
            "503 ends the run": ("(408, 429, *range(500, 505))", "(408, 429, 502, 504)"),
            "a password passes": ("if parts.username is not None:", "if False:"),
            "waits for ever": ("sock_read=timeout,", ""),
            "an answer may take for ever": ("total=CONNECT_TIMEOUT + 3 * timeout,", ""),
            "an answer may be of any size": ("if len(data) > LARGEST:", "if False:"),
            "goes where it is sent": ("allow_redirects=False", "allow_redirects=True"),
            "unpacks": (", auto_decompress=False", ""),
            "proxies are asked": ("auto_decompress=False", "auto_decompress=False, trust_env=True"),
            "connections are kept": ("force_close=True", "force_close=False"),
            "one body for all tries": ("data=make_body()", "data=self.__dict__.setdefault('body', make_body())"),
            "brackets end the run": ("(ValueError, RecursionError)", "ValueError"),
            "the second of two keys counts": (", object_pairs_hook=_without_twins", ""),
            "a server without TLS is waited for": ("if _speaks_no_tls(error):", "if False:"),
            "what is no HTTP is waited for": ("(aiohttp.ClientResponseError, ValueError)", "ZeroDivisionError"),
            "Cancel unheard while an answer is awaited": (
                "                self.while_waiting()\n",
                "                pass\n",
            ),
            "always back": (
                "        except _Again:\n            return False",
                "        except _Again:\n            return True",
            ),
            "a refusal means that it is gone": ("return True  # it refuses", "return False  # it refuses"),
            "the token's name for the token": ('os.environ.get(variable, "").strip() if', "variable if"),
            "the token as it is in the variable": (
                'os.environ.get(variable, "").strip() if',
                'os.environ.get(variable, "") if',
            ),
            "the token is kept": ("if self.token:", "if False:"),
        },
    ),
    Target(
        "trainer/training/waiting.py",
        ("test_waiting.py",),
        {
            "asked as often as ever": ("pause = min(2 * pause, LONGEST_PAUSE)", "pause = pause"),
            "ever more rarely": ("min(2 * pause, LONGEST_PAUSE)", "2 * pause"),
            "back at once": ("if unavailable.is_back():", "if True:"),
            "a stop unheard": ("            look()\n", ""),
            "a stop unheard while an answer is awaited": ("with looked_at(self.reward, self.look):", "if True:"),
            "asked anew as soon as ever": ("                    times += 1\n", ""),
        },
    ),
    Target(
        "trainer/training/loop.py",
        ("test_waiting.py",),
        {
            "waits without saving": (
                "        self.save_if_new()\n        self.on_event(Waiting",
                "        self.on_event(Waiting",
            ),
            "Cancel does not end the waiting": ("        self.setup.policy.before_call()\n", ""),
            "a stop does not end the waiting": (
                "        if self.control.ending:\n            raise Stopped",
                "        pass",
            ),
            "ends where a reward is gone": ("patient(setup.rewards, self.hold, self.stop_if_asked)", "setup.rewards"),
        },
    ),
]
