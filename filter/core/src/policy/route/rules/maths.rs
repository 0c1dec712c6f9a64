//! Mathematics: notation, terms, quantities in word problems.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Maths;

const TERMS: &str = "
    equation equations integral derivative polynomial matrix matrices vector eigenvalue eigenvalues
    probability theorem lemma corollary group ring field finite infinite prime modulo logarithm
    sqrt sine cosine tangent triangle circle radius angle area volume perimeter function_f solve
    calculate compute simplify factor factorial permutations combinations expected_value variance
    distribution limit series sequence converges convergent continuous differentiable homomorphism
    isomorphic subgroup bijection injective surjective integer_n roots coefficient
    gleichung wahrscheinlichkeit berechne berechnen löse équation probabilité calcule calculer
    résous ecuación probabilidad calcula calcular resuelve equação probabilidade_de equazione
    probabilità calcola risolvi уравнение уравнения вероятность вычисли вычислите реши решите
    oblicz rozwiąż hesapla
    方程 概率 確率 机率 计算 計算 求解 积分 積分 导数 導數 微分 矩阵 矩陣 行列 三角 계산 확률 방정 적분 미분
    احسب معادلة";

const PROOF: &str = "
    prove proves proof proving show_that derive derivation disprove counterexample if_and
    beweise beweisen beweis zeige_dass démontre démontrez démontrer prouve prouver demuestra
    demostrar demuestre prove_que demonstre dimostra dimostrare bewijs докажи докажите доказать
    доказательство udowodnij ispatla kanıtla
    证明 證明 証明 推导 推導 증명 أثبت برهن";

const QUANTITIES: &str = "
    how_many how_much total each every per half twice double triple thrice quarter third percent
    percentage more_than less_than fewer remaining left altogether cost costs spend spent earn earns
    paid pays profit average times sold sells buys bought hours minutes days weeks miles dollars
    cents years_old
    wie_viele wie_viel insgesamt jeweils hälfte doppelt combien moitié double_de cuántos cuántas
    cuánto mitad doble quantos quantas quanto metade dobro quanti quante metà сколько половина
    всего ile kaç
    多少 几个 幾個 一共 总共 每个 一半 全部 얼마 몇개 모두 كم";

impl Rule for Maths {
    fn words(&self) -> &'static [&'static str] {
        &[TERMS, PROOF, QUANTITIES]
    }

    fn weigh(&self, facts: &Facts, [terms, proof, quantities, _]: [f32; GROUPS]) -> f32 {
        // A word problem has numbers and says how they relate.
        let numbers = facts.numbers + facts.amounts;
        let problem = up_to(numbers + quantities, 5.0) * up_to(quantities, 2.0);
        let notation = up_to(facts.operators + 2.0 * facts.latex, 8.0);
        0.8 * up_to(terms, 3.0) + 3.2 * up_to(proof, 1.0) + 1.8 * problem + 0.8 * notation
    }
}
