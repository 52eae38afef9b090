"""Texts that break tokenizers, masks and limits: one list for every parity test."""

UNITS = {
    "korean": "데비안은 자유로운 운영 체제입니다. ",
    "english": "Debian is a free operating system. ",
    "mixed": "apt로 package를 설치한다. ",
    "emoji": "🙂👩‍👩‍👧‍👦🇰🇷 ",
}
ODD = {
    "one letter": "a",
    "one syllable": "가",
    "emoji alone": "🐧",
    "family emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "NUL": "앞\0뒤 before\0after",
    "full width": "ＡＢＣ１２３　ｄｅｂｉａｎ",
    "combining marks": "e" + "\u0301" * 100,
    "decomposed hangul": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "half-width hangul": "ﾡﾢﾣ",
    "byte order mark": "\ufeff데비안",
    "right to left": "שלום עולם مرحبا",
    "control characters": "a\x01b\x7fc\u200bd",
    "last code point": "x\U0010ffffy",
    "white space inside": "  두  칸 \t\n 띄움  ",
    "very long word": "가나다라" * 60,
    "special tokens as text": "<s> </s> <pad> <mask> <unk>",
}
