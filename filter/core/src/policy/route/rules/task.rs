//! What is asked for: a lookup, a label, a translation; or an analysis, a design, a proof.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Task;

const EASY: &str = "
    translate translation classify categorize categorise label extract summarize summarise summary
    tldr spell spelling capital define definition synonym synonyms antonym list convert format
    rephrase reword proofread lookup sentiment reply_with answer_yes yes_or one_word
    what_time what_day who_is who_was what_is whats when_is when_was where_is where_can
    übersetze übersetzen übersetzung zusammenfassung zusammenfassen klassifiziere extrahiere
    hauptstadt nenne wann wo_ist wer_ist
    traduis traduire traduction résume résumer résumé classe extrais capitale quelle_est quel_est
    traduce traducir traducción resume resumir resumen clasifica extrae cuál_es dónde quién
    traduza traduzir tradução resuma classifique extraia onde qual_é quem
    traduci riassumi riassunto classifica estrai dove qual_è
    vertaal vat_samen waar_is
    переведи переведите перевод кратко извлеки столица когда где кто
    przetłumacz streść gdzie kiedy
    çevir özetle nerede
    翻译 翻譯 翻訳 总结 總結 要約 概括 提取 抽取 分类 分類 首都 哪里 哪裡 什么 什麼
    번역 요약 분류 추출 수도 언제 어디
    ترجم لخص صنف استخرج أين متى";

const HARD: &str = "
    analyze analyse analysis analyzing evaluate evaluation critique critically assess design
    architect architecture optimize optimise optimization strategy strategic tradeoffs tradeoff
    trade_offs compare contrast comparison justify justification argue investigate diagnose
    root_cause synthesize synthesise research comprehensive indepth in_depth detailed thorough
    thoroughly rigorous rigorously plan roadmap propose proposal forecast negotiate draft essay
    implications recommend recommendation pros_and
    analysiere analysieren bewerte entwirf entwerfe entwickle vergleiche vergleichen begründe
    untersuche optimiere strategie ausführlich konzept
    analysez analyser analyse_la évalue évaluez évaluer compare_les comparez comparer concevez
    concevoir conçois justifie justifiez stratégie détaillé détaillée
    analiza analizar analice evalúa evaluar diseña diseñar compara comparar justifica estrategia
    detallado detallada
    analise avalie projete desenhe compare_os justifique estratégia detalhado detalhada
    analizza valuta progetta confronta giustifica dettagliato dettagliata
    analyseer ontwerp vergelijk onderbouw
    проанализируй проанализируйте сравни сравните разработай разработайте спроектируй обоснуй
    обоснуйте оптимизируй стратегию подробно
    przeanalizuj porównaj zaprojektuj uzasadnij
    analiz_et karşılaştır tasarla
    分析 评估 評估 評価 设计 設計 优化 優化 最適 比较 比較 论证 論証 策略 戦略 方案 详细 詳細
    분석 평가 설계 최적 비교 전략 자세
    حلل قارن صمم قيم";

const SMALL_TALK: &str = "
    hi hello hey thanks thank goodbye bye please_help good_morning good_evening how_are ok okay
    hallo danke tschüss guten_tag bonjour merci salut hola gracias adiós olá obrigado obrigada ciao
    grazie привет спасибо здравствуйте merhaba teşekkürler cześć dziękuję
    你好 谢谢 謝謝 您好 안녕 감사 مرحبا شكرا";

/// Everyday service talk: the words of people who want something of theirs settled.
const SUPPORT: &str = "
    my_order my_card my_account my_password my_transfer my_payment my_money my_package my_phone
    my_subscription my_refund my_pin my_app my_top refund delivery shipping invoice billing
    cancel reset login log_in sign_in password opening_hours order_number tracking
    can_i do_you how_do how_can how_long why_is why_was
    bestellung passwort rechnung lieferung konto commande facture livraison compte pedido factura
    cuenta contraseña fatura conta senha ordine fattura заказ пароль счет доставка
    订单 訂單 密码 密碼 退款 账户 帳戶 发票 注文 返金 주문 환불";

impl Rule for Task {
    fn words(&self) -> &'static [&'static str] {
        &[EASY, HARD, SMALL_TALK, SUPPORT]
    }

    fn weigh(&self, facts: &Facts, [easy, hard, small_talk, support]: [f32; GROUPS]) -> f32 {
        // An easy word in a long text is part of the text and not the task.
        let short = 1.0 - up_to(facts.words, 120.0);
        1.2 * up_to(hard, 1.0) + 1.6 * up_to((hard - 1.0).max(0.0), 3.0)
            - short * (0.9 * up_to(easy, 1.0) + 0.7 * up_to(small_talk, 1.0))
            - short * 0.9 * up_to(support, 2.0)
    }
}
