//! Programs: written, read, repaired.

use crate::policy::route::facts::Facts;
use crate::policy::route::rule::{GROUPS, Rule, up_to};

pub(in super::super) struct Code;

const TERMS: &str = "
    code function functions method class script program python javascript typescript java rust
    golang sql query regex html css bash api endpoint json yaml array string tuple dictionary
    boolean integer loop variable import def return const async await struct enum lambda null
    algorithm library module compiler database repository unit_test write_a implement
    implementation funktion programm skript fonction programme función programa funzione функция
    функцию код программу kod
    代码 代碼 函数 函數 関数 编程 編程 程序 程式 算法 코드 함수";

const TROUBLE: &str = "
    debug debugging error exception traceback stack_trace stacktrace segfault crash crashes bug
    panic undefined typeerror valueerror keyerror nullpointerexception deadlock race_condition
    memory_leak leak fails failing fehler erreur bogue ошибка ошибку 调试 調試 报错 报錯 错误 エラ 오류 디버";

const DESIGN: &str = "
    refactor refactoring concurrency concurrent thread threadsafe distributed consensus scalable
    scalability latency throughput microservice microservices schema migration sharding replication
    transaction transactions cache caching queue kubernetes architecture_for system_design
    complexity dynamic_programming recursion recursive lockfree lock_free asynchronous protocol
    nebenläufig verteilte distribué распределенной распределённую 分布 并发 並行 架构 架構 분산";

impl Rule for Code {
    fn words(&self) -> &'static [&'static str] {
        &[TERMS, TROUBLE, DESIGN]
    }

    fn weigh(&self, facts: &Facts, [terms, trouble, design, _]: [f32; GROUPS]) -> f32 {
        let signs = up_to(facts.code_signs + 2.0 * facts.identifiers, 12.0);
        let block = up_to(facts.fences, 1.0).max(up_to(facts.indented, 6.0));
        1.5 * up_to(terms, 2.0)
            + 0.7 * up_to(trouble, 2.0) * up_to(terms + facts.code_signs, 2.0)
            + 1.4 * up_to(design, 2.0)
            + 0.5 * signs
            + 0.5 * block
    }
}
