//! Questions to change, over many subjects: what the generator starts from.

/// A question with at most one slot `{}` and what may stand there.
pub(crate) const BASES: &[(&str, &str)] = &[
    (
        "How do I reset my {} password?",
        "router,email,bank,school,work,streaming",
    ),
    (
        "How do I install {} on a laptop?",
        "Postgres,Docker,Ubuntu,Blender,Firefox,Node",
    ),
    (
        "How do I undo a {} in Git?",
        "commit,merge,rebase,push,stash",
    ),
    (
        "What is the difference between a {} and a process?",
        "thread,coroutine,container,service",
    ),
    (
        "Why is my {} so slow to start?",
        "laptop,build,database,browser,phone",
    ),
    (
        "How do I connect to a {} from the command line?",
        "server,database,printer,cluster",
    ),
    (
        "What is {} used for?",
        "Redis,Kafka,Terraform,Webpack,Prometheus",
    ),
    (
        "Where are the {} stored on a server?",
        "logs,backups,certificates,sessions",
    ),
    (
        "How do I sort a list of {} by name?",
        "users,files,records,contacts",
    ),
    (
        "Can I run {} without root access?",
        "Docker,Nginx,Postgres,Kubernetes",
    ),
    (
        "How do I find out which program uses {}?",
        "memory,bandwidth,the camera,the disk",
    ),
    (
        "What are the side effects of {}?",
        "ibuprofen,metformin,lisinopril,aspirin,melatonin",
    ),
    (
        "How is {} diagnosed?",
        "asthma,anemia,diabetes,arthritis,pneumonia",
    ),
    (
        "Can children take {} for a fever?",
        "paracetamol,ibuprofen,antibiotics",
    ),
    (
        "What are the symptoms of {}?",
        "measles,gout,shingles,bronchitis,anemia",
    ),
    (
        "How do I prepare for a {}?",
        "colonoscopy,blood test,marathon,job interview,long flight",
    ),
    (
        "What should I eat after a {}?",
        "workout,fast,surgery,migraine",
    ),
    (
        "Why does my {} hurt when I wake up?",
        "back,neck,jaw,shoulder,knee",
    ),
    (
        "Is it safe to drink {} during pregnancy?",
        "coffee,green tea,kombucha,wine",
    ),
    (
        "What is the best time to visit {}?",
        "Iceland,Kyoto,Peru,Morocco,Tasmania",
    ),
    (
        "How do I get from the airport to {}?",
        "Lisbon,Osaka,Vienna,Chicago,Lima",
    ),
    (
        "Do I need a visa for {}?",
        "Vietnam,Brazil,Kenya,Turkey,India",
    ),
    (
        "Where can I park near {}?",
        "the stadium,the harbour,the museum,the station",
    ),
    (
        "What can I do with kids in {}?",
        "Copenhagen,Denver,Rome,Singapore",
    ),
    (
        "How do I claim a refund for a delayed {}?",
        "flight,train,parcel,bus",
    ),
    (
        "How long should I boil {}?",
        "eggs,potatoes,lentils,pasta,beetroot",
    ),
    (
        "What can I use instead of {} in a cake?",
        "butter,milk,eggs,yeast",
    ),
    (
        "How do I keep {} fresh for a week?",
        "basil,bread,strawberries,fish",
    ),
    ("Why does my {} always burn?", "rice,toast,garlic,caramel"),
    ("What goes well with {}?", "risotto,salmon,goat cheese,lamb"),
    (
        "How do I sharpen a {} at home?",
        "knife,chisel,pair of scissors,mower blade",
    ),
    (
        "How do I write a {}?",
        "will,lease,cover letter,thesis,haiku",
    ),
    (
        "Can a landlord keep my deposit for {}?",
        "cleaning,damage,unpaid rent",
    ),
    (
        "What happens if I break a {}?",
        "lease,contract,window,promise",
    ),
    (
        "How do I register a {}?",
        "trademark,company,car,patent,domain",
    ),
    ("Who pays for the {} in a divorce?", "house,lawyer,debts"),
    (
        "What are the penalties for {}?",
        "speeding,perjury,tax fraud,littering",
    ),
    (
        "How do I invest in {}?",
        "bonds,index funds,gold,real estate",
    ),
    (
        "What is the interest rate on a {}?",
        "mortgage,savings account,student loan",
    ),
    (
        "How are {} taxed?",
        "dividends,bonuses,capital gains,pensions",
    ),
    (
        "How do I improve my credit score after a {}?",
        "bankruptcy,divorce,late payment",
    ),
    (
        "What is a {} in finance?",
        "hedge,swap,short sale,margin call",
    ),
    (
        "Who won the {} final?",
        "Wimbledon,Champions League,Super Bowl,Stanley Cup",
    ),
    (
        "How do I train for a {}?",
        "marathon,triathlon,powerlifting meet",
    ),
    (
        "What are the rules of {}?",
        "cricket,curling,water polo,chess",
    ),
    (
        "How many players are in a {} team?",
        "handball,rugby,volleyball,lacrosse",
    ),
    (
        "What is the highest mountain in {}?",
        "Africa,Canada,Japan,Europe",
    ),
    (
        "Which river flows through {}?",
        "Budapest,Cairo,Seville,Baghdad",
    ),
    (
        "What is the capital of {}?",
        "Mongolia,Bolivia,Slovenia,Ghana",
    ),
    ("Why is {} so dry?", "the Atacama,Namibia,central Australia"),
    ("How far is {} from the sea?", "Madrid,Moscow,Dallas,Delhi"),
    (
        "How do {} find their way home?",
        "pigeons,salmon,turtles,bees",
    ),
    ("Why do {} sleep so much?", "cats,koalas,teenagers,lions"),
    ("What do {} eat in winter?", "bears,deer,hedgehogs,robins"),
    ("How do I teach my dog to {}?", "sit,swim,heel,stay calm"),
    ("How do I remove {} from a shirt?", "ink,wine,grease,blood"),
    ("How do I fix a leaking {}?", "tap,roof,radiator,gutter"),
    (
        "What is the best {} for a small kitchen?",
        "oven,fridge,table,lamp",
    ),
    (
        "How do I cancel my {}?",
        "subscription,order,booking,membership,insurance",
    ),
    (
        "Where can I buy {} online?",
        "seeds,vinyl records,contact lenses,spare parts",
    ),
    (
        "Is {} worth the money?",
        "a warranty,business class,solar power,an MBA",
    ),
    (
        "How do I change the {} on my account?",
        "address,email,phone number,plan",
    ),
    (
        "What does {} mean in a contract?",
        "indemnity,force majeure,severability",
    ),
    (
        "How can I learn {} by myself?",
        "Spanish,piano,calculus,welding",
    ),
    (
        "Why was the {} invented?",
        "telescope,zipper,barometer,stethoscope",
    ),
    (
        "Who painted the {}?",
        "Mona Lisa,Night Watch,Birth of Venus",
    ),
    (
        "When was the {} built?",
        "Eiffel Tower,Panama Canal,Hoover Dam",
    ),
    (
        "What causes {}?",
        "earthquakes,inflation,hiccups,rust,tides",
    ),
    ("Does {} expire?", "honey,a passport,a gift card,sunscreen"),
    (
        "How do I talk to my {} about money?",
        "boss,parents,partner,children",
    ),
    (
        "Is there a limit on {}?",
        "transfers,withdrawals,uploads,luggage",
    ),
    (
        "I lost my {}. What should I do?",
        "passport,wallet,phone,ticket",
    ),
    ("Should I lease or buy a {}?", "car,copier,tractor"),
    (
        "What is the fastest way to get to {}?",
        "the airport,Geneva,the coast",
    ),
    (
        "How do I transfer {} from one account to another?",
        "money,photos,contacts,points",
    ),
    (
        "How do I turn on {} for a single contact?",
        "notifications,location sharing,read receipts",
    ),
];

/// Words that may stand for each other in all of the questions above.
pub(crate) const SYNONYMS: &[(&str, &str)] = &[
    ("fix", "repair"),
    ("remove", "delete"),
    ("buy", "purchase"),
    ("laptop", "notebook"),
    ("fridge", "refrigerator"),
    ("kids", "children"),
    ("best", "top"),
    ("car", "automobile"),
    ("lawyer", "attorney"),
    ("phone", "telephone"),
    ("improve", "enhance"),
    ("job", "occupation"),
    ("difference", "distinction"),
    ("money", "funds"),
    ("causes", "triggers"),
    ("symptoms", "signs"),
    ("find", "locate"),
    ("cancel", "terminate"),
    ("fast", "quick"),
    ("change", "alter"),
    ("need", "require"),
    ("photos", "pictures"),
    ("boss", "manager"),
    ("film", "movie"),
    ("program", "app"),
    ("penalties", "punishments"),
];

/// Small words of which another makes another question.
pub(crate) const SMALL: &[(&str, &[&str])] = &[
    ("for", &["with", "about", "against", "by"]),
    ("in", &["for", "from", "on", "about"]),
    ("on", &["for", "from", "by"]),
    ("with", &["for", "by", "about"]),
    ("to", &["for", "about", "with"]),
    ("from", &["in", "for", "to"]),
    ("of", &["for", "on", "in"]),
    ("by", &["for", "with"]),
    ("my", &["your", "this", "their"]),
    ("a", &["this", "every", "that"]),
    ("the", &["these", "all the", "any other"]),
    ("best", &["most popular", "easiest"]),
];

/// What makes another question at the end of one, with no word of substance.
pub(crate) const TAILS: &[&str] = &[
    "for you",
    "for this",
    "for others",
    "on my own",
    "by myself",
    "all by themselves",
    "to others",
    "like that",
    "for them",
    "or not",
    "at all",
    "from that",
    "with this",
    "in general",
    "about that",
];
