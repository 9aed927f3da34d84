"""Batching: concurrent requests to one signature of one version run as one.

The parameters, their checks and the messages are those of TensorFlow Serving's batching session
over TensorFlow's ``shared_batch_scheduler.h``: one queue per set of inputs and outputs, batch
threads shared by all models, a full queue refuses with UNAVAILABLE.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from development_model_server import config
from development_model_server.errors import (
    Code,
    ServingError,
    failed_precondition,
    invalid_argument,
)
from development_model_server.protos import BatchingParameters
from development_model_server.tensors import ARRAY_RANK, DT_STRING, Array, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from development_model_server.inference import Runner
    from development_model_server.metrics import Metrics

_logger = logging.getLogger(__name__)

PARAMETERS_FILE = "batching_params.pbtxt"
_DEFAULT_MAX_BATCH_SIZE = 1000
_DEFAULT_MAX_ENQUEUED_BATCHES = 10
_MAX_PADDED_RANK = 6

Feeds = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class QueueOptions:
    """How one queue forms its batches."""

    max_batch_size: int
    batch_timeout_micros: int
    max_enqueued_batches: int
    max_execution_batch_size: int
    split_large_batches: bool
    allowed_batch_sizes: tuple[int, ...]
    pad_variable_length_inputs: bool

    @classmethod
    def from_parameters(cls, parameters: BatchingParameters) -> QueueOptions:
        """Check BatchingParameters.

        Raises:
            ServingError: they contradict each other. As in TensorFlow Serving this comes up when a
                version is loaded, so it fails the load.
        """

        def value(name: str, default: int) -> int:
            return getattr(parameters, name).value if parameters.HasField(name) else default

        max_batch_size = value("max_batch_size", _DEFAULT_MAX_BATCH_SIZE)
        allowed = tuple(parameters.allowed_batch_sizes)
        if allowed and allowed[-1] != max_batch_size:
            raise invalid_argument(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was"
                f" {allowed[-1]}; expected {max_batch_size}"
            )
        split = parameters.enable_large_batch_splitting.value
        execution = value("max_execution_batch_size", max_batch_size) if split else max_batch_size
        timeout = value("batch_timeout_micros", 0)
        enqueued = value("max_enqueued_batches", _DEFAULT_MAX_ENQUEUED_BATCHES)
        if enqueued == 0 and not split:
            enqueued = 1
        if max_batch_size == 0:
            raise invalid_argument(f"input_batch_size_limit must be positive; was {max_batch_size}")
        if timeout < 0:
            raise invalid_argument(f"batch_timeout_micros must be non-negative; was {timeout}")
        if enqueued == 0:
            raise invalid_argument(f"max_enqueued_batches must be positive; was {enqueued}")
        if split and max_batch_size < execution:
            raise invalid_argument(
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater"
                f" than or equal to max_execution_batch_size.1{max_batch_size}{execution}"
            )
        return cls(
            max_batch_size,
            timeout,
            enqueued,
            execution,
            split,
            allowed,
            parameters.pad_variable_length_inputs,
        )

    def padded_size(self, size: int) -> int:
        """The lowest allowed batch size that ``size`` fits into."""
        return next((allowed for allowed in self.allowed_batch_sizes if allowed >= size), size)


@dataclass
class _Task:
    feeds: Feeds
    size: int
    deadline: float | None
    enqueued: float = field(default_factory=time.monotonic)
    result: Future[dict[str, Tensor]] = field(default_factory=Future)


@dataclass
class _Batch:
    tasks: list[_Task] = field(default_factory=list)
    size: int = 0

    def add(self, task: _Task) -> None:
        self.tasks.append(task)
        self.size += task.size


class _Queue:
    """Tasks of one set of inputs and outputs. The scheduler's lock guards it."""

    def __init__(self, runner: Runner, outputs: Sequence[str], options: QueueOptions) -> None:
        self.runner = runner
        self.outputs = outputs
        self.options = options
        self._batches: deque[_Batch] = deque([_Batch()])

    def add(self, task: _Task) -> list[_Task]:
        """Take a task in, whole or in pieces; returns the pieces.

        Raises:
            ServingError: it is too large, or the queue is full.
        """
        self._check_capacity(task)
        pieces = self._pieces(task)
        for piece in pieces:
            if self._batches[-1].size + piece.size > self.options.max_execution_batch_size:
                self._batches.append(_Batch())
            self._batches[-1].add(piece)
        return pieces

    def _check_capacity(self, task: _Task) -> None:
        options = self.options
        if task.size > options.max_batch_size:
            raise invalid_argument(
                f"Task size {task.size} is larger than maximum input batch size"
                f" {options.max_batch_size}"
            )
        full = "The batch scheduling queue to which this task was submitted is full;"
        count, limit = len(self._batches), options.max_enqueued_batches
        execution, opened = options.max_execution_batch_size, self._batches[-1].size
        if options.split_large_batches:
            capacity = (limit - count) * execution + execution - opened
            if task.size > capacity:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{full} task size is {task.size} but scheduling capacity is only {capacity}"
                    f" (num_enqueued_batches={count}, max_enqueued_batches={limit},"
                    f" open_batch_size={opened}, max_execution_batch_size={execution})",
                )
        elif opened + task.size > options.max_batch_size and count >= limit:
            raise ServingError(
                Code.UNAVAILABLE,
                f"{full} currently {count} batches enqueued and max_enqueued_batches is {limit}",
            )

    def _pieces(self, task: _Task) -> list[_Task]:
        limit = self.options.max_execution_batch_size
        room = limit - self._batches[-1].size
        if task.size <= room or not self.options.split_large_batches:
            return [task]
        sizes = [room] if room else []
        rest = task.size - room
        sizes += [limit] * (rest // limit) + ([rest % limit] if rest % limit else [])
        pieces = []
        start = 0
        for size in sizes:
            feeds = [(name, _rows(tensor, start, start + size)) for name, tensor in task.feeds]
            pieces.append(_Task(feeds, size, task.deadline))
            start += size
        return pieces

    def due(self) -> float | None:
        """When the next batch is ready, in monotonic seconds; None while there is none."""
        first = self._batches[0]
        if len(self._batches) > 1 or first.size >= self.options.max_execution_batch_size:
            return 0.0
        if not first.tasks:
            return None
        return first.tasks[0].enqueued + self.options.batch_timeout_micros / 1e6

    def take(self) -> _Batch:
        """Remove the next batch."""
        if len(self._batches) == 1:
            self._batches.append(_Batch())
        return self._batches.popleft()


class BatchScheduler:
    """Batch threads, shared by every model."""

    def __init__(
        self, parameters: BatchingParameters, metrics: Metrics, *, per_model: bool
    ) -> None:
        """Start the threads.

        Args:
            parameters: the server's parameters.
            metrics: where waiting times are counted.
            per_model: whether each version's own file has the parameters, save those of threads.

        Raises:
            ServingError: the number of threads isn't positive.
        """
        threads = len(os.sched_getaffinity(0))
        if parameters.HasField("num_batch_threads"):
            threads = parameters.num_batch_threads.value
        if threads < 1:
            raise invalid_argument(f"num_batch_threads must be positive; was {threads}")
        self._parameters = parameters
        self._metrics = metrics
        self._per_model = per_model
        self._changed = threading.Condition()
        self._busy: deque[_Queue] = deque()
        name = parameters.thread_pool_name.value or "batch_threads"
        for index in range(threads):
            threading.Thread(target=self._work, name=f"{name}_{index}", daemon=True).start()

    def wrap(self, runner: Runner, path: str) -> Runner:
        """Batch the runs of the version below ``path``.

        Raises:
            ServingError: its parameters are wrong.
        """
        parameters = self._parameters
        if self._per_model:
            file = Path(path, PARAMETERS_FILE)
            if not file.exists():
                return runner
            parameters = config.read_text_proto(str(file), BatchingParameters)
        return _BatchedRunner(self, runner, QueueOptions.from_parameters(parameters)).run

    def count_inputs(self, size: int, inputs: int) -> None:
        """Count a request's batch size, once for each of its inputs."""
        for _ in range(inputs):
            self._metrics.input_batch_size.add(size)

    def submit(self, queue: _Queue, task: _Task) -> list[_Task]:
        """Put a task into a queue; returns the pieces to wait for. Raises ServingError."""
        with self._changed:
            pieces = queue.add(task)
            if queue not in self._busy:
                self._busy.append(queue)
            self._changed.notify()
        return pieces

    def _work(self) -> None:
        while True:
            queue, batch = self._next_batch()
            try:
                self._process(queue, batch)
            except ServingError as error:
                _fail(batch, error)
            except Exception as error:
                _logger.exception("A batch failed unexpectedly")
                _fail(batch, ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))

    def _next_batch(self) -> tuple[_Queue, _Batch]:
        with self._changed:
            while True:
                wait = None
                now = time.monotonic()
                for _ in range(len(self._busy)):
                    queue = self._busy.popleft()
                    due = queue.due()
                    if due is None:
                        continue
                    self._busy.append(queue)
                    if due <= now:
                        batch = queue.take()
                        self._changed.notify()
                        return queue, batch
                    wait = due - now if wait is None else min(wait, due - now)
                self._changed.wait(wait)

    def _process(self, queue: _Queue, batch: _Batch) -> None:
        now = time.monotonic()
        for task in batch.tasks:
            self._metrics.queuing_latency.add(int((now - task.enqueued) * 1e6), "")
        deadlines = [task.deadline for task in batch.tasks]
        if all(deadline is not None and deadline <= now for deadline in deadlines):
            raise ServingError(
                Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue"
            )
        timeout_ms = 0
        if None not in deadlines:
            latest = max(deadline for deadline in deadlines if deadline is not None)
            timeout_ms = max(1, int((latest - now) * 1000))
        padded = queue.options.padded_size(batch.size)
        self._metrics.padding_size.add(padded - batch.size, str(padded))
        self._metrics.processed_batch_size.add(padded)
        feeds = _merged(batch, queue.options, padded)
        results = queue.runner(feeds, queue.outputs, timeout_ms)
        self._metrics.wrapped_run_count.add()
        for tensor in results:
            if not tensor.shape:
                raise failed_precondition("Batched output tensor has 0 dimensions")
            if tensor.shape[0] != padded:
                raise failed_precondition(
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th"
                    " dimension sizes of the input tensors"
                )
        start = 0
        for task in batch.tasks:
            end = start + task.size
            task.result.set_result(
                {
                    name: _rows(tensor, start, end)
                    for name, tensor in zip(queue.outputs, results, strict=True)
                }
            )
            start = end


def _fail(batch: _Batch, error: ServingError) -> None:
    for task in batch.tasks:
        if not task.result.done():
            task.result.set_exception(error)


class _BatchedRunner:
    """Runs one version by way of the scheduler, a queue for each set of inputs and outputs."""

    def __init__(self, scheduler: BatchScheduler, runner: Runner, options: QueueOptions) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._options = options
        self._lock = threading.Lock()
        self._queues: dict[tuple[frozenset[str], frozenset[str]], _Queue] = {}

    def run(
        self, inputs: Sequence[tuple[str, Tensor]], outputs: Sequence[str], timeout_ms: int = 0
    ) -> list[Tensor]:
        """Run as part of a batch; raises ServingError."""
        size = _batch_size(inputs)
        self._scheduler.count_inputs(size, len(inputs))
        deadline = time.monotonic() + timeout_ms / 1000 if timeout_ms > 0 else None
        task = _Task(sorted(inputs, key=lambda feed: feed[0]), size, deadline)
        pieces = self._scheduler.submit(self._queue(inputs, outputs), task)
        # Each piece is settled by a batch thread: its run ends by the deadline, if there is one.
        results = [piece.result.result() for piece in pieces]
        if len(results) == 1:
            return [results[0][name] for name in outputs]
        return [_concatenated([result[name] for result in results]) for name in outputs]

    def _queue(self, inputs: Sequence[tuple[str, Tensor]], outputs: Sequence[str]) -> _Queue:
        key = (frozenset(name for name, _ in inputs), frozenset(outputs))
        with self._lock:
            if key not in self._queues:
                self._queues[key] = _Queue(self._runner, sorted(key[1]), self._options)
            return self._queues[key]


def _batch_size(inputs: Sequence[tuple[str, Tensor]]) -> int:
    if not inputs:
        raise invalid_argument("Batching Run() must have at least one input tensor")
    for _, tensor in inputs:
        if not tensor.shape:
            raise invalid_argument("Batching Run() input tensors must have at least one dimension")
        if len(tensor.shape) > ARRAY_RANK:
            raise ServingError(
                Code.UNIMPLEMENTED,
                f"this development server batches tensors of at most {ARRAY_RANK} dimensions",
            )
    sizes = {tensor.shape[0] for _, tensor in inputs}
    if len(sizes) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _elements(tensor: Tensor) -> Array:
    if tensor.dtype != DT_STRING:
        return tensor.values
    array = np.empty(len(tensor.strings), dtype=object)
    array[:] = tensor.strings
    return array.reshape(tensor.shape)


def _from_elements(dtype: int, elements: np.ndarray[Any, Any]) -> Tensor:
    if dtype != DT_STRING:
        return Tensor(dtype, elements.shape, values=elements)
    return Tensor(dtype, elements.shape, strings=elements.reshape(-1).tolist())


def _rows(tensor: Tensor, start: int, end: int) -> Tensor:
    return _from_elements(tensor.dtype, _elements(tensor)[start:end])


def _concatenated(tensors: Sequence[Tensor]) -> Tensor:
    return _from_elements(tensors[0].dtype, np.concatenate([_elements(t) for t in tensors]))


def _merged(batch: _Batch, options: QueueOptions, padded: int) -> Feeds:
    """The tasks' inputs one after the other, filled up to ``padded`` rows.

    Raises:
        ServingError: their shapes differ where they mustn't.
    """
    feeds = []
    for position, (name, first) in enumerate(batch.tasks[0].feeds):
        tensors = [task.feeds[position][1] for task in batch.tasks]
        if options.pad_variable_length_inputs:
            parts = _padded_alike([_elements(tensor) for tensor in tensors])
        else:
            if any(tensor.shape[1:] != first.shape[1:] for tensor in tensors):
                raise failed_precondition(
                    f"Tensors with name '{name}' from different tasks have different shapes and"
                    " padding is turned off. Set pad_variable_length_inputs to true, or ensure that"
                    " all tensors with the same name have equal dimensions starting with the first"
                    " dim."
                )
            parts = [_elements(tensor) for tensor in tensors]
        if any(tensor.dtype != first.dtype for tensor in tensors):
            raise ServingError(
                Code.INTERNAL,
                "Tensor concat operation failed: INVALID_ARGUMENT: Cannot concatenate tensors that"
                " have different data types.",
            )
        # A row that is known to be valid fills the batch up.
        parts += [parts[-1][:1]] * (padded - batch.size)
        feeds.append((name, _from_elements(first.dtype, np.concatenate(parts))))
    return feeds


def _padded_alike(parts: list[Array]) -> list[Array]:
    """Arrays brought to the same shape after their first axis, by their own first element."""
    rank = parts[0].ndim
    if any(part.ndim != rank for part in parts) or rank > _MAX_PADDED_RANK:
        raise invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
    shape = [max(part.shape[axis] for part in parts) for axis in range(1, rank)]
    alike = []
    for part in parts:
        if list(part.shape[1:]) == shape:
            alike.append(part)
            continue
        if not part.size:
            raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
        filled = np.full((part.shape[0], *shape), part.reshape(-1)[0], dtype=part.dtype)
        filled[tuple(slice(size) for size in part.shape)] = part
        alike.append(filled)
    return alike
