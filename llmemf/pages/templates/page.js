// Sorting, showing all, copying, and one trial highlighted in all charts at once.
(function(){
var d=document,root=d.documentElement;root.classList.add('js');
var data,tip=d.getElementById('tip'),lit=null;
function each(list,f){Array.prototype.forEach.call(list,f)}
function light(t){
  if(t===lit)return;
  each(d.querySelectorAll('.on'),function(e){e.classList.remove('on')});
  lit=t;
  if(t!==null)each(d.querySelectorAll('[data-t="'+t+'"]'),function(e){e.classList.add('on');
    if(e.tagName==='path')e.parentNode.appendChild(e)});
}
function found(x,y){
  for(var r=0;r<=8;r+=2)for(var k=0;k<(r?8:1);k++){
    var e=d.elementFromPoint(x+r*Math.cos(k*.785),y+r*Math.sin(k*.785));
    if(e&&e.dataset&&e.dataset.t)return e.dataset.t;
  }
  return null;
}
function show(event){
  var target=event.target,plot=target.closest&&target.closest('.plot'),row=target.closest&&target.closest('tr[data-t]');
  var t=plot?found(event.clientX,event.clientY):row?row.dataset.t:null;
  light(t);
  if(t===null||!plot){tip.style.display='none';return}
  var of=data[t];tip.textContent='';
  [of[0]+'  '+of[1],of[2],of[3]].forEach(function(text,i){
    var line=d.createElement(i?'span':'b');line.textContent=text;tip.appendChild(line);
    if(i===1)tip.appendChild(d.createElement('br'))});
  tip.style.display='block';
  var w=tip.offsetWidth,h=tip.offsetHeight,x=event.clientX+14,y=event.clientY+14;
  tip.style.left=Math.max(4,x+w>innerWidth-4?event.clientX-w-14:x)+'px';
  tip.style.top=(y+h>innerHeight-4?event.clientY-h-14:y)+'px';
}
d.addEventListener('pointermove',show);d.addEventListener('pointerdown',show);
function wire(){
data=JSON.parse(d.getElementById('data').textContent);
var board=d.querySelector('.board');
if(board){
  var body=board.tBodies[0],heads=board.tHead.rows[0].cells;
  each(heads,function(head,column){
    var button=head.firstElementChild;
    if(button)button.addEventListener('click',function(){
      var down=head.getAttribute('aria-sort')==='descending';
      if(!head.hasAttribute('aria-sort'))down=head.dataset.first==='up';
      each(heads,function(other){other.removeAttribute('aria-sort')});
      head.setAttribute('aria-sort',down?'ascending':'descending');
      var rows=Array.prototype.map.call(body.rows,function(row){
        var cell=row.cells[column],text=cell.dataset.v||cell.textContent,number=parseFloat(text);
        return {row:row,text:text,number:number,none:text==='-'||text===''}});
      rows.sort(function(a,b){
        if(a.none!==b.none)return a.none?1:-1;
        var order=isNaN(a.number)||isNaN(b.number)?(a.text<b.text?-1:a.text>b.text?1:0):a.number-b.number;
        return down?order:-order});
      rows.forEach(function(item,place){item.row.classList.toggle('more',place>=20);body.appendChild(item.row)});
    });
  });
  each(d.querySelectorAll('[data-toggle]'),function(button){
    button.addEventListener('click',function(){
      board.classList.toggle(button.dataset.toggle);
      var text=button.textContent;button.textContent=button.dataset.other;button.dataset.other=text});
  });
}
each(d.querySelectorAll('.code .tool'),function(button){
  button.addEventListener('click',function(){
    var text=button.parentNode.querySelector('pre').textContent;
    function done(){button.textContent='copied';setTimeout(function(){button.textContent='copy'},1500)}
    function byHand(){var area=d.createElement('textarea');area.value=text;d.body.appendChild(area);area.select();
      d.execCommand('copy');area.remove();done()}
    if(navigator.clipboard&&window.isSecureContext)navigator.clipboard.writeText(text).then(done,byHand);else byHand();
  });
});
}
wire();
var seconds=+d.body.dataset.live,tag=null;
function swap(text){
  var fresh=new DOMParser().parseFromString(text,'text/html'),board=d.querySelector('.board'),open=[],shown=[];
  each(d.querySelectorAll('details'),function(e,i){if(e.open)open.push(i)});
  each(['short','wide'],function(name){if(board&&board.classList.contains(name))shown.push(name)});
  var sorted=board&&d.querySelector('.board th[aria-sort]');
  var column=sorted?sorted.cellIndex:-1,order=sorted?sorted.getAttribute('aria-sort'):'';
  each(['header','main','footer','#data'],function(part){
    var now=d.querySelector(part),next=fresh.querySelector(part);
    if(now&&next)now.replaceWith(d.importNode(next,true))});
  d.title=fresh.title;lit=null;tip.style.display='none';wire();
  each(d.querySelectorAll('details'),function(e,i){if(open.indexOf(i)>=0)e.open=true});
  each(d.querySelectorAll('[data-toggle]'),function(button){
    var is=d.querySelector('.board').classList.contains(button.dataset.toggle);
    if(board&&is!==(shown.indexOf(button.dataset.toggle)>=0))button.click()});
  var head=column<0?null:d.querySelector('.board').tHead.rows[0].cells[column];
  for(var i=0;head&&i<2&&head.getAttribute('aria-sort')!==order;i++)head.firstElementChild.click();
}
function ask(){
  if(d.hidden)return;
  fetch(location.pathname,{headers:tag?{'If-None-Match':tag}:{},cache:'no-store'}).then(function(answer){
    root.classList.toggle('away',!(answer.ok||answer.status===304));
    if(answer.status!==200)return;
    tag=answer.headers.get('ETag');return answer.text().then(swap);
  },function(){root.classList.add('away')});
}
if(seconds){setInterval(ask,1000*seconds);d.addEventListener('visibilitychange',ask)}
})();
