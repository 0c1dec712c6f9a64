//! Reasoning: causes, conditions, several steps, constraints to keep at once.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Reasoning;

const WHY: &str = "
    why because therefore hence explain explains explanation reason reasons reasoning cause causes
    effect consequence consequences imply implies infer inference deduce conclude conclusion
    suppose assume assuming hypothesis counterfactual
    warum weil erkläre erklären begründung annahme pourquoi parce explique expliquer raison
    suppose_que porqué por_qué porque explica explicar razón suponga razão perché spiega
    spiegare waarom leg_uit почему потому объясни объясните предположим dlaczego wyjaśnij neden
    açıkla
    为什 為什 解释 解釋 説明 理由 原因 假设 假設 なぜ 이유 설명 왜냐 لماذا اشرح";

const STEPS: &str = "
    step_by by_step first second finally next_step then_ steps multi_step careful_thought
    think_through show_your work_through walk_me
    schritt_für für_schritt schritte zuerst schließlich étape_par par_étape étapes paso_a a_paso
    pasos passo_a passos passo passaggi шаг_за за_шагом пошагово шаги krok_po adım_adım
    步骤 步驟 逐步 一步 手順 단계";

const LOGIC: &str = "
    if unless either neither nor whether all some none every_one only exactly at_least at_most
    not must cannot without except both consistent inconsistent true_or statement statements
    premise premises valid invalid follows contradiction clue clues directly_left paradox
    wenn dann entweder weder genau mindestens höchstens ohne si_et soit_ni exactement au_moins
    sauf sin_que exactamente al_menos excepto exatamente pelo_menos exceto если либо ровно
    如果 那么 除非 至少 至多 必须 必須 もし 만약 적어
    إذا";

impl Rule for Reasoning {
    fn words(&self) -> &'static [&'static str] {
        &[WHY, STEPS, LOGIC]
    }

    fn weigh(&self, facts: &Facts, [why, steps, logic, _]: [f32; GROUPS]) -> f32 {
        // Several sentences, and long ones, are premises to keep in mind.
        let sentences = facts.sentences + facts.questions;
        let sentence = facts.words / sentences.max(1.0);
        0.7 * up_to(why, 2.0)
            + 0.9 * up_to(steps, 2.0)
            + 1.6 * up_to(logic, 5.0)
            + 0.6 * up_to((sentences - 1.0).max(0.0), 5.0)
            + 0.4 * up_to((sentence - 10.0).max(0.0), 20.0)
    }
}
