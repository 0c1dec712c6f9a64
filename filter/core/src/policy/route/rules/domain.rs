//! Fields in which a small model goes wrong more often (law, physics, logic, clinical cases), and
//! those that it has read enough about.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Domain;

const CASES: &str = "
    plaintiff defendant court statute contract liability negligence jurisdiction tort evidence
    hearsay constitutional amendment lawyer attorney judge jury appeal clause lease deed easement
    patient diagnosis symptoms clinical dose treatment syndrome physician examination
    kläger beklagter gericht vertrag haftung demandeur tribunal contrat demandante contrato
    суд договор 合同 法院 判決 契約 계약 법원";

const SCIENCE: &str = "
    velocity acceleration force energy momentum quantum wavelength photon voltage current circuit
    resistance magnetic electron atom molecule reaction equilibrium enthalpy entropy gravity mass
    orbit star planet gene genes protein enzyme dna allele chromosome neural network classifier
    regression estimator heteroscedasticity bit bits byte bytes processor instruction operating_system
    monopoly elasticity inflation interest_rate gdp aggregate marginal fiscal monetary audit
    depreciation tax";

const COMMON: &str = "
    country city river movie film song singer actor book author team sport player king queen
    president religion god buddhist jewish islam christian marketing brand customer consumer
    vitamin diet food social society culture";

impl Rule for Domain {
    fn words(&self) -> &'static [&'static str] {
        &[CASES, SCIENCE, COMMON]
    }

    fn weigh(&self, facts: &Facts, [cases, science, common, _]: [f32; GROUPS]) -> f32 {
        let _ = facts;
        0.5 * up_to(cases, 3.0) + 0.4 * up_to(science, 3.0) - 0.4 * up_to(common, 2.0)
    }
}
