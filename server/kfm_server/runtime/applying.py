"""Which decision a fact of the mailbox asks for."""

from kfm_server.runtime.facts import Asked, Ended, Fact, Interrupted, Lost, Submitted, TakenOver, Ticked
from kfm_server.turns.decide.advance import advance
from kfm_server.turns.decide.control import control
from kfm_server.turns.decide.draft import Draft
from kfm_server.turns.decide.recover import attempt_lost, recover
from kfm_server.turns.decide.step import attempt_ended, attempt_interrupted
from kfm_server.turns.decide.submit import submit


def apply_fact(draft: Draft, fact: Fact) -> bool:
    """Decide what follows from it; False: it is the result of an attempt that counts no more.

    Raises KfmError for a request that is refused.
    """
    match fact:
        case Submitted():
            submit(draft, fact.context, fact.turn_id, fact.request, fact.parent)
        case Asked():
            control(draft, fact.turn_id, fact.asked)
        case Ended():
            return attempt_ended(draft, fact.turn_id, fact.attempt, fact.result)
        case Interrupted():
            attempt_interrupted(draft, fact.turn_id, fact.step_key, fact.attempt)
        case Lost():
            attempt_lost(draft, fact.turn_id, fact.step_key, fact.attempt, fact.gone_us)
        case Ticked():
            advance(draft)
        case TakenOver():
            recover(draft, clean=fact.clean)
        case _:
            raise AssertionError(f"{type(fact).__name__} decides nothing")
    return True
