"""The disk of a simulated node: the one place that says which store in memory it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fakes.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from lockbox_node.core.storage_params import StoreParams
    from lockbox_node.ports import Answer, WallClock

FLUSH_S = 0.003


class SimStore(MemoryStore):
    """One opening; answers nothing once its machine has crashed."""

    epoch = 0
    dead = False

    def _serve(self, work: Callable[[], Any], answer: Answer[Any]) -> None:
        def work_alive() -> Any:  # noqa: ANN401
            return None if self.dead else work()

        def answer_alive(result: Any) -> None:  # noqa: ANN401
            if not self.dead:
                answer(result)

        if not self.dead:
            super()._serve(work_alive, answer_alive)


class SimDisk:
    """What a node keeps from one life to the next."""

    def __init__(self, params: StoreParams, clock: WallClock, rng: Random) -> None:
        self._params, self._clock, self._rng = params, clock, rng
        self._epoch = 0
        self._opened: SimStore | None = None

    def open(self) -> SimStore:
        """The store for the next life."""
        store = SimStore(self._params, self._clock, FLUSH_S)
        if self._opened is not None:
            store._state = self._opened._state
            store._state.on_corrupt = lambda address, descriptor_hash: store.on_corrupt(address, descriptor_hash)
        self._epoch += 1
        store.epoch = self._epoch
        self._opened = store
        return store

    def crash(self) -> None:
        """The open store answers nothing any more."""
        if self._opened is not None:
            self._opened.dead = True
