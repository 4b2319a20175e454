"""A conversation that a dialect was translated into: it can be answered, or its tokens counted."""

from attrs import evolve, field, frozen

from atomr_trio.core import ExecuteBatch, Message, Rendering, SamplingParams, Tokenize, ToolOffer

from ._generation import Generation
from ._structure import Structure

__all__ = ["Conversation"]


@frozen(kw_only=True)
class Conversation:
    """What a model is asked, the same for an answer and for a question of its length.

    Args:
        model: the deployment's name.
        turns: what was said.
        offer: the functions that the model may call; ``None``: none.
        rendering: how it is put to the model.
    """

    model: str
    turns: list[Message]
    offer: ToolOffer | None
    rendering: Rendering = field(factory=Rendering)

    def question(self) -> Tokenize:
        """Ask for the tokens of the prompt."""
        return Tokenize(
            model=self.model,
            messages=self.turns,
            tools=self.offer,
            rendering=self.rendering,
            add_special=False,
        )

    def generation(
        self,
        id: str,
        sampling: SamplingParams,
        *,
        stream: bool | None,
        cache_salt: str | None,
        priority: int = 0,
        prompt_param: str = "messages",
        structure: Structure | None = None,
    ) -> Generation:
        """Ask for an answer, of this structure; the other arguments are those of `ExecuteBatch` and `Generation`."""
        grammar, param = structure or (None, None)
        required = self.offer is not None and self.offer.required
        batch = ExecuteBatch(
            request_id=id,
            model=self.model,
            messages=self.turns,
            sampling=evolve(sampling, grammar=grammar),
            tools=self.offer,
            rendering=self.rendering,
            stream=bool(stream),
            priority=priority,
            cache_salt=cache_salt or "",
        )
        return Generation(
            id=id,
            model=self.model,
            prompts=(batch,),
            stream=bool(stream),
            prompt_param=prompt_param,
            grammar_param=param or ("tools" if required else None),
        )
