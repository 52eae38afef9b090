"""Builds XLM-R's tokenizer.json from its vocabulary: the same ids as the original sentencepiece model gives."""

import io
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from polarvec_server.models.sentence_files import write_json
from polarvec_server.models.store import ModelStoreError

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
# Where a sentencepiece model keeps its rules: ModelProto.normalizer_spec.precompiled_charsmap.
_NORMALIZER_SPEC, _PRECOMPILED_CHARSMAP = 3, 2


def write_tokenizer(folder: Path, pieces: Sequence[tuple[str, float]], max_tokens: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    Args:
        folder: Where to.
        pieces: Piece and score in order of ids; the first four are <s>, <pad>, </s> and <unk>.
        max_tokens: The most tokens of a text, for readers of tokenizer_config.json.

    Raises:
        ModelStoreError: sentencepiece, which brings the normalisation rules, is not installed.
    """
    tokenizer = Tokenizer(Unigram(list(pieces), unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(nmt_nfkc_charsmap())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    # XLM-R's mask swallows the space before it; the others stand for themselves.
    tokenizer.add_special_tokens([AddedToken(text, special=True, lstrip=text == "<mask>") for text in _SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    config: dict[str, object] = {f"{kind}_token": text for kind, text in names.items()}
    write_json(
        folder / "tokenizer_config.json",
        config | {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": max_tokens},
    )


def nmt_nfkc_charsmap() -> bytes:
    """Returns the character map of sentencepiece's rule nmt_nfkc, which XLM-R was trained with (240,007 bytes).

    sentencepiece gives its rules away only inside a model, so a model of a few letters is trained.

    Raises:
        ModelStoreError: sentencepiece is not installed.
    """
    try:
        import sentencepiece
    except ModuleNotFoundError:
        raise ModelStoreError(
            "The package sentencepiece, which has XLM-R's normalisation rules, is not installed; "
            "install it with `pip install sentencepiece`."
        ) from None
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ab ba aab b a"] * 10),
        model_writer=model,
        vocab_size=8,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    return _field(_field(model.getvalue(), _NORMALIZER_SPEC), _PRECOMPILED_CHARSMAP)


def _field(message: bytes, wanted: int) -> bytes:
    """Returns the content of a length-delimited field of a protobuf message, by hand.

    sentencepiece's own protobuf module needs protobuf 7, and tritonclient holds protobuf below 7.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            _, at = _varint(message, at)
            continue
        if key & 7 == 2:
            size, at = _varint(message, at)
        else:
            size = {1: 8, 5: 4}[key & 7]
        if key >> 3 == wanted:
            return message[at : at + size]
        at += size
    raise ModelStoreError("sentencepiece wrote a model without normalisation rules; install version 0.2.")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
