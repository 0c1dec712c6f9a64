//! The words that the guards and the check know by name: what each is, and which mean the same.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::question::Kind;

/// Words by what they are. A word in no list is content.
const KINDS: &[(Kind, &str)] = &[
    (
        Kind::Function,
        "a an the of in on at to for with by as and or but that there here into \
         onto from than if whether then so too also about via vs versus per upon among amongst \
         between through throughout within along across around towards toward off out up down \
         while though although because unto lot lots such same each every all \
         both any some few many much most least several various ever like away back together apart",
    ),
    (Kind::Wh, "what which who whom whose why how when where"),
    (
        Kind::Aux,
        "is are am be been being was were do does did doing done has have had having can could \
         may might must shall should will would ought need",
    ),
    (
        Kind::Pronoun,
        "i me my mine myself you your yours yourself yourselves we us our ours ourselves one \
         ones oneself he him his himself she her hers herself they them their theirs themselves \
         it its itself someone somebody anyone anybody everyone everybody people person \
         something anything everything",
    ),
    (
        Kind::Relation,
        "before after since until till against instead despite only during under over above \
         below beneath behind inside outside beyond near besides unlike always sometimes \
         often rarely seldom again anymore more less another this these those \
         other others else extra additional",
    ),
    (
        Kind::Negation,
        "not no never none nothing nobody nowhere neither nor without cannot non unable except \
         excluding unless lack lacking fail fails failed hardly",
    ),
    (
        Kind::Light,
        "way ways thing things get gets getting got go goes going good great best better top nice \
         kind kinds sort sorts type types method methods approach option options idea ideas tip \
         tips advice step steps tell explain describe define possible able help example examples \
         list actually really just please very quite exactly truly easily properly correctly \
         usually generally main major basic common popular different particular specific certain \
         actual real general effective efficient suitable ideal perfect useful helpful feel feels \
         let try trying exist exists available called call phrase word term question become \
         recommend suggest suggestions recommendations fact facts make makes making made do doing use uses using \
         used think know known want wants find finding see take takes taking give gives giving \
         given show keep put start started begin happen happens mean means meaning name names say \
         look come comes bring having own owns finally currently \
         honestly still yet already",
    ),
    (
        Kind::Date,
        "january february april june july august september october november december monday \
         tuesday wednesday thursday friday saturday sunday today tomorrow yesterday tonight \
         morning afternoon evening midnight noon weekend weekday daily weekly monthly yearly \
         annual annually hourly spring summer autumn winter christmas easter ramadan diwali \
         halloween thanksgiving last next previous upcoming past future ago century decade \
         recent recently lately soon later earlier",
    ),
    (
        Kind::Unit,
        "km mile m cm mm inch foot yard kg gram mg mcg lb ounce ton liter ml gallon cup \
         tablespoon teaspoon celsius fahrenheit kelvin usd eur gbp inr jpy cny percent second \
         minute hour day week month year kb mb gb tb kbps mbps mph kmh watt kw kwh volt amp hz \
         mhz ghz acre hectare calorie joule psi bar cent px",
    ),
];

/// Light words that say what is done: one in place of another asks something else.
const VERBS: &str = "get getting got go goes going make makes making made do doing use uses using \
    used think know known want wants find finding see take takes taking give gives giving given \
    show keep put start started begin happen happens mean means meaning say look come comes bring \
    become feel feels tell explain describe define recommend suggest buy purchase visit read watch";

/// Spellings of units, brought to the ones in [`KINDS`].
const UNITS: &str = "km:kilometer,kilometers,kilometre,kilometres,kms mile:miles,mi \
    m:meter,meters,metre,metres cm:centimeter,centimeters,centimetre,centimetres,cms \
    mm:millimeter,millimeters,millimetre,millimetres inch:inches foot:feet,ft yard:yards,yd \
    kg:kilogram,kilograms,kilo,kilos,kgs gram:grams,g mg:milligram,milligrams \
    mcg:microgram,micrograms,µg lb:pound,pounds,lbs ounce:ounces,oz ton:tons,tonne,tonnes \
    liter:liters,litre,litres,l ml:milliliter,milliliters,millilitre,millilitres \
    gallon:gallons cup:cups tablespoon:tablespoons,tbsp teaspoon:teaspoons,tsp \
    celsius:centigrade usd:dollar,dollars,$ eur:euro,euros,€ gbp:£,quid \
    inr:rupee,rupees,rs,₹ jpy:yen,¥ cny:yuan,rmb percent:%,percentage second:seconds,secs,sec \
    minute:minutes,mins,min hour:hours,hrs,hr day:days week:weeks,wk,wks month:months \
    year:years,yrs,yr kb:kilobyte,kilobytes mb:megabyte,megabytes gb:gigabyte,gigabytes,gigs,gig \
    tb:terabyte,terabytes watt:watts,w kw:kilowatt,kilowatts volt:volts,v amp:amps,ampere \
    hz:hertz acre:acres hectare:hectares,ha calorie:calories,kcal,cal joule:joules \
    cent:cents px:pixel,pixels";

/// Words that may stand for each other without changing what is asked.
const SYNONYMS: &str = "buy,purchase fix,repair,mend delete,remove,erase start,begin,commence \
    big,large,huge small,little,tiny car,automobile photo,picture,image,pic movie,film \
    fast,quick,rapid quickly,fast,rapidly doctor,physician disease,illness child,kid \
    way,method,approach best,top cost,price pricey,expensive,costly phone,telephone,cellphone \
    email,mail happen,occur end,finish choose,select,pick error,mistake \
    require,need important,crucial,vital difficult,hard tough,hard simple,easy \
    job,occupation assist,help find,locate obtain,get receive,get acquire,get \
    show,display alter,modify,change repair,fix speak,talk shut,close \
    attorney,lawyer teenager,teen infant,baby \
    bicycle,bike refrigerator,fridge television,tv laptop,notebook couch,sofa \
    holiday,vacation trip,journey cab,taxi soccer,football cinema,theater autumn,fall \
    garbage,trash,rubbish flat,apartment purchase,buy \
    discover,find answer,reply \
    distinction,difference distinguish,difference different,difference differ,difference \
    benefit,advantage drawback,disadvantage con,disadvantage pro,advantage \
    reason,cause gain,increase decrease,reduce,lower lower,reduce improve,enhance,better \
    build,construct,create method,technique purpose,goal,aim \
    lots,many forbidden,prohibited allowed,permitted \
    examine,inspect application,app programme,program software,program \
    favorite,favourite color,colour center,centre organize,organise \
    grey,gray theatre,theater behaviour,behavior catalogue,catalog \
    cheque,check licence,license travel,travelling \
    math,maths,mathematics stats,statistics exam,examination info,information \
    yummy,delicious,tasty afraid,scared scary,frightening funny,hilarious \
    rich,wealthy smart,intelligent,clever famous,well-known weird,strange \
    cope,deal handle,deal manage,handle prevent,avoid stop,quit rid,remove \
    website,site internet,web \
        earth,world greatest,best greatest,top ill,sick sleepy,tired aim,target smell,odor \
        affect,influence affect,impact effect,impact gain,obtain gain,get \
        raise,increase grow,increase boost,increase lessen,reduce shrink,reduce \
        eliminate,remove clean,wash enjoy,like \
        assemble,build form,create formed,created \
        employ,use utilize,use need,require must,need permit,allow let,allow \
        tip,advice suggestion,advice recommendation,advice \
        place,spot area,region firm,company corporation,company \
        employee,worker boss,manager nation,country town,city road,street \
        sad,unhappy glad,happy angry,mad calm,relaxed brave,courageous \
        sofa,couch pants,trousers cookie,biscuit vehicle,car lorry,truck plane,airplane \
        airplane,aircraft gun,firearm store,shop film,movie \
        kid,child lady,woman folk,people \
        stomach,belly tummy,belly rubbish,trash lift,elevator petrol,gasoline \
        terminate,end halt,stop verify,confirm \
        link,connect attach,connect combine,merge gather,collect \
        locate,find detect,find search,look hunt,search watch,view see,view \
        reply,respond answer,respond call,ring contact,reach \
        understand,grasp remember,recall \
        possess,have \
        rest,sleep nap,sleep \
        damaged,broken shattered,broken ruined,destroyed wreck,destroy \
        suitable,appropriate proper,appropriate correct,right accurate,correct \
        wrong,incorrect main,primary principal,primary main,chief key,main \
        whole,entire complete,entire total,entire several,various different,various \
        daily,everyday annual,yearly rapid,fast swift,fast slow,sluggish \
        frequently,often regularly,often salary,pay wage,pay wage,salary \
        fee,charge fee,cost charge,cost bill,invoice \
        funds,money danger,risk hazard,risk \
        therapy,treatment \
        medication,medicine pill,tablet physician,doctor \
        signup,register enroll,register login,signin \
        password,passcode notification,alert bug,defect issue,problem trouble,problem \
        folder,directory screen,display \
        retrieve,recover restore,recover regain,recover \
        relation,relationship opinion,view operate,work";

/// Pairs of which one in either question, in place of the other, asks something else.
const ANTONYMS: &str = "more:less,fewer most:least better:worse best:worst good:bad,poor,evil \
    great:bad,terrible higher:lower high:low highest:lowest bigger:smaller biggest:smallest \
    larger:smaller largest:smallest big:small,little large:small,little huge:tiny,small \
    longer:shorter long:short longest:shortest tall:short taller:shorter tallest:shortest \
    faster:slower fast:slow quick:slow fastest:slowest older:younger,newer old:new,young \
    oldest:youngest,newest early:late earlier:later earliest:latest hot:cold hotter:colder \
    hottest:coldest warm:cold,cool heavier:lighter heavy:light heaviest:lightest \
    cheap:expensive,costly cheaper:costlier cheapest:costliest,priciest rich:poor strong:weak \
    strongest:weakest easy:hard,difficult easiest:hardest simple:complex,complicated \
    before:after above:below over:under inside:outside up:down in:out into:out,from onto:off to:from toward:from,away with:without for:against on:off first:last \
    increase:decrease,reduce,lower raise:lower,reduce rise:fall gain:lose win:lose buy:sell \
    purchase:sell lend:borrow send:receive give:take,receive push:pull open:close,shut \
    start:stop,end,finish begin:end,finish,stop enable:disable allow:forbid,prevent,block,deny \
    permit:forbid,prohibit accept:reject,refuse,decline add:remove,delete,subtract \
    create:delete,destroy insert:delete,remove install:uninstall,remove connect:disconnect \
    lock:unlock block:unblock follow:unfollow subscribe:unsubscribe mute:unmute like:dislike,hate \
    love:hate import:export upload:download login:logout encrypt:decrypt encode:decode \
    compress:decompress,extract zip:unzip deposit:withdraw credit:debit income:expense \
    profit:loss asset:liability advantage:disadvantage pro:con benefit:drawback,risk,disadvantage \
    cause:cure,effect,prevent,treat symptom:cause,cure,treatment prevent:cause,treat \
    left:right north:south east:west northern:southern eastern:western male:female man:woman \
    men:women boy:girl husband:wife father:mother dad:mom son:daughter brother:sister \
    king:queen uncle:aunt he:she him:her his:her actor:actress boyfriend:girlfriend \
    employer:employee buyer:seller landlord:tenant teacher:student parent:child \
    maximum:minimum max:min maximize:minimize upper:lower front:back,rear top:bottom \
    positive:negative true:false legal:illegal public:private internal:external \
    domestic:foreign,international indoor:outdoor single:married alive:dead live:die \
    sunrise:sunset day:night morning:evening,night am:pm past:future last:next previous:next \
    pass:fail success:failure succeed:fail arrive:depart,leave arrival:departure enter:leave,exit \
    entrance:exit source:destination origin:destination sender:recipient,receiver \
    frontend:backend client:server hire:fire join:leave,quit save:spend,delete \
    wet:dry soft:hard thick:thin wide:narrow deep:shallow clean:dirty full:empty raw:cooked \
    sweet:sour,salty,bitter safe:dangerous,unsafe healthy:unhealthy,sick acute:chronic \
    benign:malignant systolic:diastolic hypothermia:hyperthermia introvert:extrovert \
    offense:defense offence:defence attack:defend plaintiff:defendant prosecution:defense \
    civil:criminal felony:misdemeanor fixed:variable,floating gross:net inner:outer \
    ascending:descending horizontal:vertical serial:parallel synchronous:asynchronous \
    static:dynamic mutable:immutable push:pull get:set,lose grow:shrink attract:repel \
    still:already,yet few:many,most all:most,any every:any loosen:tighten inflate:deflate expand:shrink,contract appear:disappear remember:forget \
    freeze:melt,thaw,unfreeze boil:freeze merge:split,rebase always:never,sometimes \
    all:none,some everyone:nobody optimist:pessimist ally:enemy war:peace supply:demand \
    same:different similar:different alike:different theist:atheist monetary:fiscal stalactite:stalagmite virus:bacteria viral:bacterial vein:artery \
    solvent:solute inhale:exhale latitude:longitude numerator:denominator";

/// Beginnings of which each turns a word round or sets it beside another of its row.
pub(super) const TURNING: &[&[&str]] = &[
    &[
        "", "un", "in", "im", "il", "ir", "dis", "non", "anti", "mis", "de", "ab", "a", "counter",
    ],
    &["hyper", "hypo", "normo"],
    &["over", "under"],
    &["pre", "post"],
    &["inter", "intra", "extra", "trans"],
    &["macro", "micro", "nano"],
    &["up", "down"],
    &["in", "out", "ex", "im"],
    &[
        "mono", "bi", "di", "tri", "tetra", "poly", "multi", "uni", "quad",
    ],
    &["sub", "super", "sur"],
    &["endo", "exo", "ecto"],
    &["iso", "aniso", "hetero", "homo"],
    &["fore", "hind", "back", "front"],
    &["kilo", "mega", "giga", "tera", "milli", "centi", "nano"],
    &["step", "half", "grand"],
    &["infra", "ultra"],
    &["brady", "tachy"],
];

/// Forms that no rule of spelling leads back.
const IRREGULAR: &str = "go:went,gone buy:bought make:made find:found get:got,gotten send:sent \
    lose:lost pay:paid tell:told say:said take:took,taken give:gave,given run:ran \
    break:broke,broken steal:stole,stolen see:saw,seen know:knew,known think:thought \
    come:came become:became begin:began,begun write:wrote,written eat:ate,eaten \
    drink:drank,drunk drive:drove,driven choose:chose,chosen speak:spoke,spoken \
    leave:left feel:felt keep:kept hold:held teach:taught catch:caught bring:brought \
    sell:sold spend:spent win:won meet:met sleep:slept build:built grow:grew,grown \
    fly:flew,flown forget:forgot,forgotten hide:hid,hidden wear:wore,worn lead:led \
    child:children man:men woman:women mouse:mice tooth:teeth goose:geese \
    analysis:analyses crisis:crises die:dying,died lie:lying tie:tying use:using,used";

/// Words that look inflected and are not.
const WHOLE: &str = "news physics mathematics economics politics species series always perhaps \
    bus gas plus virus status corpus campus business process access address less unless \
    morning evening king ring string spring thing wing bring ceiling during nothing something \
    anything everything need speed feed seed bleed breed weed hundred red bed shed led \
    analysis basis crisis thesis paris texas us usa his this yes its lens class glass mass pass \
    boss loss cross dress stress press success princess illness fitness wedding pudding \
    building meeting red sacred naked wicked sing swing cling sting fling boxing";

/// Contractions and their usual misspellings, written out.
const SPELLED_OUT: &[(&str, &str)] = &[
    ("can't", "can not"),
    ("cant", "can not"),
    ("cannot", "can not"),
    ("won't", "will not"),
    ("wont", "will not"),
    ("shan't", "shall not"),
    ("ain't", "is not"),
    ("dont", "do not"),
    ("doesnt", "does not"),
    ("didnt", "did not"),
    ("isnt", "is not"),
    ("arent", "are not"),
    ("wasnt", "was not"),
    ("werent", "were not"),
    ("hasnt", "has not"),
    ("havent", "have not"),
    ("couldnt", "could not"),
    ("shouldnt", "should not"),
    ("wouldnt", "would not"),
    ("whats", "what is"),
    ("hows", "how is"),
    ("wheres", "where is"),
    ("whos", "who is"),
    ("im", "i am"),
    ("ive", "i have"),
    ("thats", "that is"),
    ("theres", "there is"),
    ("let's", "let us"),
    ("gonna", "going to"),
    ("wanna", "want to"),
    ("gotta", "have to"),
    ("e-mail", "email"),
    ("wi-fi", "wifi"),
    ("log-in", "login"),
    ("on-line", "online"),
    ("u", "you"),
    ("ur", "your"),
    ("pls", "please"),
    ("plz", "please"),
    ("thru", "through"),
    ("w/o", "without"),
];

/// What a word may be: all that is known of it by name.
#[derive(Debug, Default)]
struct Entry {
    kind: Option<Kind>,
    unit: Option<&'static str>,
    base: Option<&'static str>,
    whole: bool,
    verb: bool,
    synonyms: Vec<u16>,
    opposites: Vec<&'static str>,
}

static WORDS: LazyLock<HashMap<&'static str, Entry>> = LazyLock::new(build);

fn build() -> HashMap<&'static str, Entry> {
    let mut words: HashMap<&'static str, Entry> = HashMap::new();
    for &(kind, list) in KINDS {
        for word in list.split_whitespace() {
            words.entry(word).or_default().kind.get_or_insert(kind);
        }
    }
    for (unit, spelling) in pairs(UNITS) {
        words.entry(spelling).or_default().unit = Some(unit);
    }
    for (base, form) in pairs(IRREGULAR) {
        words.entry(form).or_default().base = Some(base);
    }
    for word in WHOLE.split_whitespace() {
        words.entry(word).or_default().whole = true;
    }
    for word in VERBS.split_whitespace() {
        words.entry(word).or_default().verb = true;
    }
    for (group, list) in SYNONYMS.split_whitespace().enumerate() {
        for word in list.split(',') {
            words.entry(word).or_default().synonyms.push(group as u16);
        }
    }
    for (one, other) in pairs(ANTONYMS) {
        words.entry(one).or_default().opposites.push(other);
        words.entry(other).or_default().opposites.push(one);
    }
    words
}

/// `head:one,two other:three` as (head, one), (head, two), (other, three).
fn pairs(list: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    list.split_whitespace()
        .filter_map(|row| row.split_once(':'))
        .flat_map(|(head, rest)| rest.split(',').map(move |one| (head, one)))
}

/// What kind of word this is; `None` for content.
pub(super) fn kind(word: &str) -> Option<Kind> {
    WORDS.get(word)?.kind
}

/// Whether a light word says what is done.
pub(super) fn is_light_verb(word: &str) -> bool {
    WORDS.get(word).is_some_and(|entry| entry.verb)
}

/// The unit that the word spells, in one spelling.
pub(super) fn unit(word: &str) -> Option<&'static str> {
    let (&own, entry) = WORDS.get_key_value(word)?;
    entry
        .unit
        .or((entry.kind == Some(Kind::Unit)).then_some(own))
}

/// The contraction written out.
pub(super) fn spelled_out(word: &str) -> Option<&'static str> {
    SPELLED_OUT
        .iter()
        .find(|(short, _)| *short == word)
        .map(|(_, long)| *long)
}

/// Whether the word looks like one of the past: *paid*, *worked*.
pub(super) fn is_past(word: &str) -> bool {
    match WORDS.get(word) {
        Some(entry) if entry.whole => false,
        Some(entry) if entry.base.is_some() => !word.ends_with("ing"),
        _ => word.len() > 4 && word.ends_with("ed"),
    }
}

/// A key that the forms of one word share. Not always a word.
pub(super) fn stem(word: &str) -> String {
    let entry = WORDS.get(word);
    if let Some(base) = entry.and_then(|entry| entry.base) {
        return ending(base.to_string());
    }
    if !word.is_ascii() || word.len() < 4 || entry.is_some_and(|entry| entry.whole) {
        return ending(word.to_string());
    }
    let mut stem = word.to_string();
    if word.ends_with("ies") && word.len() > 4 {
        stem.truncate(word.len() - 3);
        stem.push('y');
    } else if ["sses", "shes", "ches", "xes", "zzes"]
        .iter()
        .any(|tail| word.ends_with(tail))
    {
        stem.truncate(word.len() - 2);
    } else if word.ends_with('s') && !["ss", "us", "is"].iter().any(|tail| word.ends_with(tail)) {
        stem.truncate(word.len() - 1);
    }
    if WORDS.get(stem.as_str()).is_some_and(|entry| entry.whole) {
        return ending(stem);
    }
    american(&mut stem);
    for tail in ["ing", "ed"] {
        let Some(head) = stem.strip_suffix(tail) else {
            continue;
        };
        let vowel = head.contains(['a', 'e', 'i', 'o', 'u', 'y']);
        if head.len() < 3 || !vowel || head.ends_with('e') && tail == "ed" {
            continue;
        }
        let last = head.len() - 1;
        let doubled = head.as_bytes()[last] == head.as_bytes()[last - 1]
            && !head.ends_with(['l', 's', 'z', 'e', 'o']);
        let keep = if doubled { last } else { head.len() };
        stem.truncate(keep);
        break;
    }
    ending(stem)
}

/// *organise* is *organize*.
fn american(word: &mut String) {
    for tail in ["ise", "ised", "ising", "isation"] {
        if let Some(head) = word.strip_suffix(tail).filter(|head| head.len() > 3) {
            *word = format!("{head}iz{}", &tail[2..]);
            return;
        }
    }
}

fn ending(mut stem: String) -> String {
    if stem.len() > 3 && stem.ends_with('e') {
        stem.pop();
    } else if stem.len() > 3 && stem.ends_with('y') {
        stem.pop();
        stem.push('i');
    }
    stem
}

/// A form that the lists hold, of a word that may be inflected.
fn listed(word: &str) -> Option<&'static Entry> {
    let has_relations = |entry: &&Entry| !entry.synonyms.is_empty() || !entry.opposites.is_empty();
    let find = |form: &str| WORDS.get(form).filter(has_relations);
    if let Some(entry) = find(word) {
        return Some(entry);
    }
    if let Some(base) = WORDS.get(word).and_then(|entry| entry.base) {
        return find(base);
    }
    let stem = stem(word);
    find(&stem)
        .or_else(|| find(&format!("{stem}e")))
        .or_else(|| {
            stem.strip_suffix('i')
                .and_then(|head| find(&format!("{head}y")))
        })
}

/// Whether the two may stand for each other.
pub(super) fn synonyms(one: &str, other: &str) -> bool {
    match (listed(one), listed(other)) {
        (Some(one), Some(other)) => one
            .synonyms
            .iter()
            .any(|group| other.synonyms.contains(group)),
        _ => false,
    }
}

/// Whether the two are opposites, by list or by their beginnings.
pub(super) fn opposites(one: &str, other: &str) -> bool {
    if let Some(entry) = listed(one) {
        let stem_of_other = stem(other);
        if entry
            .opposites
            .iter()
            .any(|word| *word == other || stem(word) == stem_of_other)
        {
            return true;
        }
    }
    turned(one, other)
}

/// Same word but for its beginning: hypertension, hypotension.
fn turned(one: &str, other: &str) -> bool {
    let (one, other) = (stem(one), stem(other));
    TURNING.iter().any(|row| {
        row.iter().any(|beginning| {
            one.strip_prefix(beginning).is_some_and(|rest| {
                rest.len() >= 3
                    && row.iter().any(|second| {
                        second != beginning && other.strip_prefix(second) == Some(rest)
                    })
            })
        })
    })
}
