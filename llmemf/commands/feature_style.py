"""Style sheet of the page of a scenario's features: light and dark, wide and narrow."""

STYLE = """
:root{--page:#f6f7f9;--card:#fff;--ink:#1b2330;--quiet:#667085;--line:#e2e6ec;--accent:#2563eb;--soft:#e8eefc;
  --warm:#fff6e5;--edge:#e8a33d;--text:#0f766e;--image:#9333ea}
@media(prefers-color-scheme:dark){:root{--page:#11151c;--card:#1a202a;--ink:#e6e9ef;--quiet:#98a2b3;--line:#2c3442;
  --accent:#7aa5ff;--soft:#232f48;--warm:#2e2718;--edge:#c98a2b;--text:#5eead4;--image:#d8b4fe}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:32px}
h1{font-size:28px;margin:0;overflow-wrap:anywhere}
h2{font-size:19px;margin:36px 0 12px}
h3{font-size:17px;margin:0;overflow-wrap:anywhere}
h4{font-size:13px;margin:0 0 8px;font-weight:600;overflow-wrap:anywhere}
h5{font-size:12px;margin:0 0 4px;font-weight:500;color:var(--quiet)}
header p,p.quiet{margin:2px 0;color:var(--quiet)}
.quiet{color:var(--quiet)}
code{font:12px ui-monospace,Menlo,Consolas,monospace}
main{padding-bottom:60px}
table,article,details,.warnings{background:var(--card);border:1px solid var(--line);border-radius:10px}
table{width:100%;border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums}
th,td{padding:10px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--line);font-weight:400}
thead th{border-top:0;color:var(--quiet);font-size:12px;vertical-align:bottom}
tbody th{font-weight:600;overflow-wrap:anywhere;min-width:150px}
td small,td .bar{display:block}
small{color:var(--quiet);font-size:12px}
.bar{height:6px;margin:7px 0 5px;min-width:70px;border-radius:3px;background:var(--soft);overflow:hidden}
.bar i{display:block;height:100%;background:var(--accent)}
tr.doubtful>th{box-shadow:inset 3px 0 var(--edge)}
.kind{font-size:11px;font-weight:600;border:1px solid currentColor;border-radius:4px;padding:0 5px;margin-right:3px}
.kind.text{color:var(--text)}
.kind.image{color:var(--image)}
.warnings{background:var(--warm);border-color:var(--edge);padding:4px 18px 12px;margin-top:24px}
.warnings h2{margin:12px 0 6px;font-size:16px}
.warnings ul{margin:0;padding-left:18px}
.warnings li{overflow-wrap:anywhere}
article{display:grid;grid-template-columns:minmax(0,300px) minmax(0,1fr);gap:24px;padding:20px;margin-bottom:18px}
.item .picture{width:100%;aspect-ratio:4/3;margin-bottom:12px}
.picture{display:flex;align-items:center;justify-content:center;background:center/contain no-repeat;
  border-radius:6px;font-size:11px;color:var(--quiet);text-align:center}
.picture.none{border:1px dashed var(--line)}
p.text{margin:8px 0 0;overflow-wrap:anywhere}
.near+.near{margin-top:16px;padding-top:16px;border-top:1px solid var(--line)}
.strips{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:12px 24px}
.item{position:sticky;top:16px;align-self:start}
ol{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:10px}
li .picture{width:100%;aspect-ratio:1}
.name{display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden;font-size:12px;
  line-height:1.3;margin-top:4px;overflow-wrap:anywhere}
.cosine{font-size:11px;color:var(--quiet);font-variant-numeric:tabular-nums}
details{padding:10px 16px;margin-top:10px}
details.text{border:0;padding:0;background:none;margin-top:4px}
summary{cursor:pointer;color:var(--accent);overflow-wrap:anywhere}
dt{color:var(--quiet);font-size:13px;margin-top:8px}
dd{margin:0;overflow-wrap:anywhere}
.card{display:grid;grid-template-columns:minmax(120px,240px) minmax(0,1fr);gap:4px 16px}
.card dt{margin:0}
@media(max-width:760px){
header,main{padding-left:14px;padding-right:14px}
h1{font-size:23px}
article{grid-template-columns:minmax(0,1fr);padding:14px}
thead{display:none}
table,tbody,tr,th,td{display:block}
tr{padding:8px 0;border-top:1px solid var(--line)}
tbody tr:first-child{border-top:0}
th,td{border:0;padding:4px 14px}
td{display:grid;grid-template-columns:45% 1fr}
td::before{content:attr(data-head);color:var(--quiet);font-size:13px;grid-row:1/3}
td>*{grid-column:2}
.strips{grid-template-columns:minmax(0,1fr)}
.item{position:static}
.card{grid-template-columns:minmax(0,1fr)}
.card dd{margin-bottom:6px}
}
"""
