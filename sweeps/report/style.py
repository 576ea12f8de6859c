"""Style sheet of the report: light and dark, wide and narrow, paper. One accent; outcomes also differ in shape."""

STYLE = """
:root{--page:#fbfbfa;--ink:#1d2329;--quiet:#646d78;--line:#e3e5e8;--faint:#eef0f2;--accent:#0b62b8;--soft:#e6effa;
--second:#b4540a;--mute:#9aa3ad;--pale:#c9ced4;--warm:#fff5e2;--edge:#dd9a2d;
--q0:#d5dae0;--q1:#b3c6dc;--q2:#83aad6;--q3:#4a86c8;--q4:#0f4f96}
@media screen and (prefers-color-scheme:dark){:root{--page:#14171b;--ink:#e3e6ea;--quiet:#99a2ad;--line:#2c3138;--faint:#22262c;
--accent:#74b0f4;--soft:#1d2b3d;--second:#f0a35e;--mute:#727b86;--pale:#474e57;--warm:#2a2417;--edge:#b98426;
--q0:#3a4048;--q1:#3d5573;--q2:#45719f;--q3:#5b96d4;--q4:#a9d0fb}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
h1{font-size:32px;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:2px 0 8px;overflow-wrap:anywhere}
h2{font-size:20px;font-weight:650;letter-spacing:-.01em;margin:0 0 4px}
h3{font-size:14px;font-weight:600;margin:0 0 6px;overflow-wrap:anywhere}
h3.sub{margin-top:36px}
section{margin-top:56px;scroll-margin-top:12px}
p{margin:0 0 10px;max-width:78ch;overflow-wrap:anywhere;text-wrap:pretty}
.over{color:var(--quiet);font-size:13px;margin:0}
.quiet,.lede{color:var(--quiet)}
.lede{margin-bottom:18px}
header .lede{font-size:16px}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;margin:14px 0 0;font-size:13px}
a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
.status,.notes{border-left:3px solid var(--edge);background:var(--warm);padding:10px 16px;margin:18px 0 0;
border-radius:0 6px 6px 0;max-width:none}
.notes{padding-left:32px;list-style:disc}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));margin:30px 0 6px;
border-top:1px solid var(--line);border-bottom:1px solid var(--line)}
.tiles div{padding:16px 18px 14px 0}
.tiles dt{font-size:13px;color:var(--quiet)}
.tiles dd{margin:0;font-size:30px;line-height:1.25;font-weight:600;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.tiles .first dd{color:var(--accent)}
.tiles small{display:block;color:var(--quiet);font-size:12px;line-height:1.4}
.scroll{overflow-x:auto;margin:14px 0 0;-webkit-overflow-scrolling:touch}
table{border-collapse:separate;border-spacing:0;font-size:13px;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:6px 14px 6px 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--faint);font-weight:400}
th{color:var(--quiet);font-size:12px;border-bottom-color:var(--line);vertical-align:bottom}
th.t,td.t{text-align:left}
td.w{white-space:normal;min-width:220px;overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}
.board td:nth-child(2),.board th:nth-child(2){position:sticky;left:0;background:var(--page);z-index:1}
.board th button{all:unset;cursor:pointer}
.board th button:hover,.board th[aria-sort] button{color:var(--accent)}
.board th button:focus-visible,.tool:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.board th[aria-sort=ascending] button::after{content:" \\2191"}
.board th[aria-sort=descending] button::after{content:" \\2193"}
.board tr.best td{font-weight:600}
.board tr.best td:nth-child(2){color:var(--accent)}
.board tr.on td{background:var(--soft)}
.board .out{color:var(--quiet)}
.js .board.short tr.more{display:none}
.js .board:not(.wide) .x{display:none}
.tools{display:none;gap:16px;margin-top:10px}
.js .tools{display:flex}
.tool{font:inherit;font-size:13px;background:none;border:0;padding:2px 0;color:var(--accent);cursor:pointer}
.tool:hover{text-decoration:underline}
.pair{display:grid;grid-template-columns:minmax(0,2fr) minmax(0,5fr);gap:16px 40px;align-items:start;margin-top:24px}
.pair .code{margin:0}
.map{display:grid;grid-template-columns:minmax(0,2fr) minmax(0,3fr);gap:0 40px;align-items:start}
.ln{width:18px;height:0;border-top:2px solid var(--mute)}
.ln.p{border-color:var(--pale)}
.ln.best{border-top:3px solid var(--accent)}
.code{position:relative;margin:14px 0 0}
pre{margin:0;padding:12px 60px 12px 14px;background:var(--faint);border-radius:6px;overflow-x:auto;
font:12.5px/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{font:12.5px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.code .tool{display:none;position:absolute;right:8px;top:6px;font-size:12px;background:var(--faint);padding:2px 6px;
border-radius:4px}
.js .code .tool{display:block}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:30px 34px;margin-top:18px}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:34px 48px;margin-top:18px}
.key{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:13px;color:var(--quiet);margin-top:10px}
.key span{display:inline-flex;align-items:center;gap:7px}
.key .d{position:static;margin:0!important}
.plot{--h:190px;padding:8px 6px 30px 46px;position:relative}
.plot.tall{--h:340px;padding-top:42px}
.plot.parallel{--h:300px;padding:30px 44px 10px 14px;min-width:520px}
.plot.triangle{--h:auto;padding:22px 12px 24px;max-width:400px}
.area{position:relative;height:var(--h)}
.triangle .area{height:auto;aspect-ratio:1.1547}
.area svg{position:absolute;inset:0;width:100%;height:100%;overflow:hidden}
.parallel svg,.triangle svg{overflow:visible}
path{fill:none;vector-effect:non-scaling-stroke;stroke-width:1;stroke:var(--line);stroke-linejoin:round}
.g{stroke:var(--faint)}
.t{stroke:var(--pale)}
.r{stroke:var(--pale);stroke-dasharray:3 4}
.s{stroke:var(--line)}
.e{stroke:var(--pale)}
.l{stroke-width:1.3;stroke:var(--mute)}
.l.p,.l.f,.l.o{stroke:var(--pale);stroke-width:1.1}
.l.q0{stroke:var(--q0)}.l.q1{stroke:var(--q1)}.l.q2{stroke:var(--q2)}.l.q3{stroke:var(--q3)}.l.q4{stroke:var(--q4)}
.l.best{stroke:var(--accent);stroke-width:2.6}
.d{position:absolute;width:8px;height:8px;margin:-4px 0 0 -4px;border-radius:50%;background:var(--mute);
border:1.5px solid var(--page)}
.d.c{background:var(--ink);opacity:.72}
.d.p,.d.o{background:var(--page);border-color:var(--mute)}
.d.f{background:var(--second);border-radius:1px}
.d.q0{background:var(--q0)}.d.q1{background:var(--q1)}.d.q2{background:var(--q2)}.d.q3{background:var(--q3)}
.d.q4{background:var(--q4)}
.triangle .d{width:11px;height:11px;margin:-5.5px 0 0 -5.5px}
.d.ring{border-radius:2px;width:9px;height:9px;margin:-4.5px 0 0 -4.5px}
.d.best{background:var(--accent);width:12px;height:12px;margin:-6px 0 0 -6px;border:2px solid var(--page);opacity:1;
z-index:2}
.triangle .d.best,.key .d.map{width:14px;height:14px;margin:-7px 0 0 -7px;border-radius:50%;
box-shadow:0 0 0 2px var(--accent)}
.key .d.map{margin:0}
.many .d{width:5px;height:5px;margin:-2.5px 0 0 -2.5px;border-width:1px}
.many .d.best{width:12px;height:12px;margin:-6px 0 0 -6px;border-width:2px}
.many .key .d{width:8px;height:8px}
.many .l{stroke-width:.8;opacity:.5}
.many .l.best{stroke-width:2.6;opacity:1}
s,u{position:absolute;text-decoration:none;font-size:11px;line-height:1;color:var(--quiet);white-space:nowrap;
font-variant-numeric:tabular-nums}
s.y{right:100%;margin-right:8px;transform:translateY(-50%)}
s.x{top:100%;margin-top:8px;transform:translateX(-50%)}
s.x.a{transform:none}
s.x.z{transform:translateX(-100%)}
.xl{position:absolute;right:6px;bottom:-8px;font-size:12px;color:var(--quiet)}
.small .xl{display:none}
.small.both .xl{display:block}
.small.both{padding-top:24px}
.yl{position:absolute;left:0;top:0;font-size:12px;line-height:1;color:var(--quiet)}
.n{position:absolute;font-size:12px;font-weight:600;line-height:1;white-space:nowrap;color:var(--accent);
margin:-6px 0 0 11px;text-shadow:0 0 3px var(--page),0 0 3px var(--page)}
.n.left{transform:translateX(-100%);margin-left:-11px}
.n.up{margin-top:-22px;margin-left:0;transform:translateX(-50%)}
.n.up.left{transform:translateX(-84%)}
.n.rung{color:var(--quiet);font-weight:400;font-size:11px;margin:-14px 0 0;transform:translateX(-50%)}
.corner{color:var(--quiet);font-weight:400;margin:0}
.corner.k0{left:0;top:100%;margin-top:8px}
.corner.k1{right:0;top:100%;margin-top:8px}
.corner.k2{left:50%;bottom:100%;margin-bottom:8px;transform:translateX(-50%)}
.axis{position:absolute;top:0;bottom:0;width:0}
.axis b{position:absolute;bottom:100%;margin-bottom:12px;font-size:12px;font-weight:600;line-height:1;
transform:translateX(-50%);white-space:nowrap}
.axis.a b{transform:translateX(-12px)}
.axis.z b{transform:translateX(-70%)}
.axis u{left:5px;transform:translateY(-50%);text-shadow:0 0 3px var(--page),0 0 3px var(--page),0 0 2px var(--page)}
.bars{display:grid;grid-template-columns:max-content minmax(120px,1fr) max-content;gap:9px 14px;align-items:center;
font-size:13px;margin-top:16px;font-variant-numeric:tabular-nums}
.bar{position:relative;height:14px;background:var(--faint);border-radius:2px}
.bar i{position:absolute;top:0;bottom:0;left:0;background:var(--accent);border-radius:2px;opacity:.85}
.bar.weak i{background:var(--mute)}
.bar em{position:absolute;top:6px;height:2px;background:var(--ink)}
.bar u{top:-3px;bottom:-3px;width:0;border-left:2px dotted var(--second)}
.stack{display:flex;height:22px;margin-top:16px;gap:2px;border-radius:3px;overflow:hidden}
.stack i{background:var(--accent)}
.stack .p{background:var(--mute)}
.stack .f{background:var(--second)}
.stack .o{background:var(--pale)}
.stack .saved{background:repeating-linear-gradient(135deg,var(--pale) 0 2px,transparent 2px 6px)}
.key .k{width:12px;height:12px;border-radius:2px}
.groups{display:grid;grid-template-columns:max-content minmax(90px,1fr) max-content;gap:2px 14px;font-size:13px;
align-items:center;font-variant-numeric:tabular-nums}
.groups .row{position:relative;height:33px;border-bottom:1px solid var(--faint)}
.groups em{position:absolute;top:9px;height:2px;background:var(--accent);opacity:.55}
.groups em.second{background:var(--second);top:21px}
.groups .d{top:10px;background:var(--accent)}
.groups .d.second,.key .d.second{background:var(--second);border-radius:1px}
.key .d.first{background:var(--accent)}
.groups .d.second{top:22px}
.groups>small{line-height:1.25;text-align:right;color:var(--quiet);font-size:11px}
ol.next{list-style:none;counter-reset:n;padding:0;margin:18px 0 0}
ol.next li{counter-increment:n;padding:0 0 18px 40px;position:relative}
ol.next li::before{content:counter(n);position:absolute;left:0;top:0;width:26px;height:26px;border-radius:50%;
background:var(--soft);color:var(--accent);font-size:13px;font-weight:600;line-height:26px;text-align:center}
dl.facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 24px;font-size:13px;margin:14px 0 0}
dl.facts dt{color:var(--quiet)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--accent);font-size:13px;margin-top:14px}
footer{margin-top:60px;padding-bottom:48px;color:var(--quiet);font-size:12px}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--page);font-size:12px;line-height:1.45;
padding:7px 10px;border-radius:5px;max-width:280px;display:none;font-variant-numeric:tabular-nums}
#tip b{display:block}
.on.d{background:var(--second)!important;border-color:var(--page);width:13px!important;height:13px!important;
margin:-6.5px 0 0 -6.5px!important;opacity:1;z-index:4}
.on.l{stroke:var(--second)!important;stroke-width:2.6!important}
@media(max-width:720px){
pre{white-space:pre-wrap;overflow-wrap:anywhere}
header,main,footer{padding-left:16px;padding-right:16px}
header{padding-top:26px}
h1{font-size:25px}
section{margin-top:44px}
.pair,.map{grid-template-columns:minmax(0,1fr)}
.tiles{grid-template-columns:1fr 1fr}
.tiles dd{font-size:24px}
.grid{grid-template-columns:minmax(0,1fr)}
.two{grid-template-columns:minmax(0,1fr)}
.plot{padding-left:42px}
.plot.tall{--h:260px}
.groups{gap:2px 10px}
dl.facts{grid-template-columns:minmax(0,1fr);gap:0}
dl.facts dd{margin-bottom:8px}
}
@media print{
:root{--page:#fff;--ink:#111;--quiet:#555}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{font-size:11px}
header,main,footer{max-width:none;padding-left:0;padding-right:0}
nav,.tools,.code .tool{display:none!important}
section{margin-top:28px}
.plot,.bars,figure,tr,li,.code,.stack{break-inside:avoid}
h2,h3{break-after:avoid}
.scroll{overflow:visible}
.js .board:not(.wide) .x{display:none}
table,th{font-size:8.5px}
th,td{padding:4px 5px 4px 0}
.groups,.bars,.key,dl.facts{font-size:10px}
.tiles{grid-template-columns:repeat(5,1fr)}
.tiles dd{font-size:22px}
.tiles small{font-size:9px}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
.grid{grid-template-columns:repeat(3,1fr)}
.plot.tall{--h:240px}
}
"""
