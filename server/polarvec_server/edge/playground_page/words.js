// Every word that the page shows, in both languages, and the sample texts.
const WORDS = {
  en: {
    language: "한국어", skip: "Skip to the results", theme: "Colours",
    theme_auto: "Auto", theme_light: "Light", theme_dark: "Dark",
    samples: "Try", sample_facts: "Korean", sample_languages: "English to Korean", sample_long: "a long text",
    queries: "Queries", documents: "Documents", count: (n) => `one a line · ${n}`,
    model: "Model", dimensions: "Dimensions", all: (n) => `${n} (all)`, truncation: "Texts too long",
    truncation_refuse: "are refused", truncation_end: "lose their end", truncation_start: "lose their start",
    key: "API key", key_hint: "Sent with each call, kept nowhere: it is gone when this page is closed.",
    rank: "Rank", nothing: "The ranking appears here.",
    ranking: "Ranking", ranking_hint: "The dot lies between the lowest and the highest similarity of all.", heat: "Similarities", tokens: "Tokens", time: "Time",
    heat_hint: "Cosine similarity; the frame marks each query's best document.",
    tokens_hint: (n, prompts) => `The model reads ${n} tokens of a text${prompts && `, its prompt (${prompts}) included`}.`,
    cut: (full, read) => `cut: ${full} → ${read}`, more: (n) => `${n} more`,
    time_hint: "From pressing the button to the answer.",
    tokenize: "tokenize", queue: "queue", inference: "inference", rest: "network and the rest", total: "total",
    query: "Query", document: "Document", place: "Place", score: "Similarity", stage: "Stage", text: "Text",
    done: (n, ms) => `${n} similarities in ${ms} ms.`,
    load: "Load now", requests: "Requests a second", tokens_s: "Tokens a second", waiting: "Tokens in the queue",
    batch: "Texts a batch", p99: "Slowest 1 % (p99)", failed: (n) => `${n} refused or failed`, texts_s: (n) => `${n} texts a second`,
    in_flight: (n) => `${n} being computed`, packs: (n) => `${n} packs a batch`, over: (s) => `over ${s} s`,
    none: "–", no_batch: "Triton's own metrics are elsewhere", encoder_down: "the encoder is away", no_load: "no answer from the server",
    problem_UNAUTHENTICATED: "This server asks for an API key. Type one that it knows.",
    problem_network: "The server does not answer. Is it still running?",
  },
  ko: {
    language: "English", skip: "결과로 건너뛰기", theme: "색상",
    theme_auto: "자동", theme_light: "밝게", theme_dark: "어둡게",
    samples: "예시", sample_facts: "한국어", sample_languages: "영어로 한국어 찾기", sample_long: "긴 글",
    queries: "질의", documents: "문서", count: (n) => `한 줄에 하나 · ${n}개`,
    model: "모델", dimensions: "차원", all: (n) => `${n} (전체)`, truncation: "너무 긴 글은",
    truncation_refuse: "거절", truncation_end: "뒤를 자름", truncation_start: "앞을 자름",
    key: "API 키", key_hint: "호출할 때만 보내고 저장하지 않습니다. 페이지를 닫으면 사라집니다.",
    rank: "순위 매기기", nothing: "순위가 여기에 나타납니다.",
    ranking: "순위", ranking_hint: "점의 자리는 전체에서 가장 낮은 유사도와 가장 높은 유사도 사이입니다.", heat: "유사도", tokens: "토큰", time: "시간",
    heat_hint: "코사인 유사도. 테두리는 질의마다 가장 가까운 문서입니다.",
    tokens_hint: (n, prompts) => `모델은 한 글에서 ${prompts && `프롬프트(${prompts})까지 합해 `}${n}토큰을 읽습니다.`,
    cut: (full, read) => `잘림: ${full} → ${read}`, more: (n) => `${n}개 더 보기`,
    time_hint: "버튼을 누른 때부터 답이 올 때까지.",
    tokenize: "토큰화", queue: "대기", inference: "추론", rest: "네트워크와 나머지", total: "합계",
    query: "질의", document: "문서", place: "순위", score: "유사도", stage: "단계", text: "글",
    done: (n, ms) => `유사도 ${n}개를 ${ms}밀리초에 계산했습니다.`,
    load: "현재 부하", requests: "초당 요청", tokens_s: "초당 토큰", waiting: "대기열의 토큰",
    batch: "배치당 글 수", p99: "가장 느린 1% (p99)", failed: (n) => `거절·실패 ${n}건`, texts_s: (n) => `초당 글 ${n}개`,
    in_flight: (n) => `계산 중 ${n}`, packs: (n) => `배치당 팩 ${n}개`, over: (s) => `최근 ${s}초`,
    none: "–", no_batch: "Triton의 지표는 다른 곳에 있습니다", encoder_down: "인코더가 응답하지 않습니다", no_load: "서버가 응답하지 않습니다",
    problem_UNAUTHENTICATED: "이 서버는 API 키를 요구합니다. 서버가 아는 키를 입력하세요.",
    problem_PERMISSION_DENIED: "이 API 키로는 이 모델을 쓸 수 없습니다.",
    problem_NO_TEXTS: "질의와 문서를 하나 이상씩 입력하세요.",
    problem_TEXT_TOO_LONG: (m, at) => `${at}: ${m.token_count ? `${m.token_count}토큰입니다(한도 ${m.token_limit})` : `${m.byte_count}바이트입니다(한도 ${m.byte_limit})`}. 글을 줄이거나 자르기를 고르세요.`,
    problem_TOO_MANY_TEXTS: "글이 너무 많습니다. 나누어 보내세요.",
    problem_OVERLOADED: "서버가 바쁩니다. 잠시 뒤에 다시 시도하세요.",
    problem_ENCODER_UNAVAILABLE: "인코더를 지금 쓸 수 없습니다. 잠시 뒤에 다시 시도하세요.",
    problem_DEADLINE_EXCEEDED: "정해진 시간 안에 끝나지 않았습니다.",
    problem_network: "서버가 응답하지 않습니다. 아직 실행 중인가요?",
  },
};

const LONG = "제주도의 기후는 한반도에서 가장 따뜻하며, 연평균 기온은 섭씨 16도 안팎이다. ";
const SAMPLES = {
  facts: {
    queries: ["대한민국의 수도는 어디인가?", "한글을 만든 사람은 누구인가?", "김치는 어떻게 만드나요?"],
    documents: [
      "대한민국의 수도는 서울특별시이며, 한강을 끼고 있다.",
      "한글은 조선의 세종대왕이 1443년에 창제하여 1446년에 반포하였다.",
      "배추를 소금에 절인 뒤 고춧가루, 마늘, 젓갈로 만든 양념을 버무려 발효시킨다.",
      "부산은 대한민국에서 두 번째로 큰 도시이자 최대의 항구 도시이다.",
      "비빔밥은 밥에 나물과 고추장을 넣어 비벼 먹는 음식이다.",
      "훈민정음 해례본은 유네스코 세계기록유산으로 등재되어 있다.",
    ],
  },
  languages: {
    queries: ["How do I reset my password?", "Can I get my money back?", "How long does delivery take?"],
    documents: [
      "비밀번호를 잊으셨다면 로그인 화면에서 '비밀번호 재설정'을 누르세요.",
      "환불은 구매한 날부터 30일 안에 받을 수 있습니다.",
      "공휴일에는 상담 창구를 열지 않습니다.",
      "배송은 보통 이틀에서 사흘이 걸립니다.",
    ],
  },
  long: {
    queries: ["제주도의 날씨는 어떤가요?"],
    documents: [`${LONG.repeat(60)}성산 일출봉은 세계자연유산이다.`.trim(), "성산 일출봉은 유네스코 세계자연유산이다.", "제주도는 겨울에도 따뜻하다."],
    truncation: "end",
  },
};

let language = "en";
const word = (name, ...values) => {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...values) : found;
};
const number = (value, digits = 0) =>
  value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const short = (value) => (value < 10 && value % 1 ? number(value, 1) : number(value));
