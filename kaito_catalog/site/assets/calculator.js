// The calculator and the hardware page: forms over plan.js and plan-data.js. Nothing that is entered leaves the page.
"use strict";

(function () {
  const data = globalThis.kaitoCatalogData;
  const { plan, longestCertain, gib, grouped } = globalThis.kaitoCatalogPlan;
  const VERDICTS = { yes: "fits", tight: "may not fit", no: "does not fit", unknown: "unknown" };
  const TERMS = {
    kvCache: "KV cache", maxModelLen: "the model's own limit", maxNumSeqs: "max_num_seqs",
    gpu: "GPU memory not published", parallelism: "how the model can be divided",
    quantization: "how the weights are stored",
  };

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const badge = (fits) => make("span", { class: `kc-badge kc-fit-${fits}` }, VERDICTS[fits]);

  function gpuOptions(select) {
    for (const gpu of data.gpus) {
      select.append(new Option(`${gpu.name} (${gib(gpu.memoryBytes)})`, gpu.name));
    }
  }

  const wholeNumber = (input) => {
    const value = Number(input.value);
    return input.value !== "" && Number.isInteger(value) && input.checkValidity() ? value : null;
  };

  function calculator(form, output) {
    const at = (name) => form.elements.namedItem(name);
    const pasted = form.querySelector(".kc-pasted");
    for (const model of data.models) at("model").append(new Option(model.repoId, model.name));
    at("model").append(new Option("a config.json of my own …", ""));
    gpuOptions(at("gpu"));
    for (const dtype of data.cacheDtypes) at("cacheDtype").append(new Option(dtype, dtype));
    at("gpuCount").max = data.mostGPUs;
    at("maxModelLen").min = data.shortestModelLen;
    // Until somebody chooses GPUs, a model is shown on the smallest instance type that it fits.
    let ownGpus = false;
    let ownContext = false;
    const start = (model) => {
      const gpu = model?.start && data.gpus.find((g) => g.name === model.start.gpu);
      return gpu && { gpu, gpuCount: model.start.gpuCount };
    };
    const fits = (model) => {
      const on = start(model);
      return on && plan(data, model, on.gpu, { gpuCount: on.gpuCount, maxModelLen: model.context }).fits === "yes";
    };
    const memory = (model) => start(model).gpu.memoryBytes * model.start.gpuCount;
    const smallest = () => data.models.filter(fits)
      .reduce((best, model) => (best && memory(best) <= memory(model) ? best : model), null);
    const named = decodeURIComponent(location.hash.slice(1));
    const first = data.models.find((model) => model.name === named) || smallest() || data.models[0];
    if (first) at("model").value = first.name;

    const MOST_CHARACTERS = 8 * 2 ** 20;
    const MOST_LEVELS = 200;
    const MOST_DIGITS = 4300; // of a whole number, as Python reads it
    const PARTS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g;

    // Why the text cannot be read, in words; null where it can.
    function fault(name, text) {
      try {
        JSON.parse(globalThis.kaitoCatalogPasted.asJson(text));
      } catch (error) {
        return `${name} is not JSON: ${error.message}.`;
      }
      let [level, isText] = [0, false];
      for (let i = 0; i < text.length; i += 1) {
        const c = text[i];
        if (isText && c === "\\") i += 1;
        else if (c === '"') isText = !isText;
        else if (!isText && (c === "{" || c === "[")) level += 1;
        else if (!isText && (c === "}" || c === "]")) level -= 1;
        if (level > MOST_LEVELS) return `${name} is nested deeper than ${MOST_LEVELS} levels.`;
      }
      for (const [part] of text.matchAll(PARTS)) {
        if (part.length > MOST_DIGITS && /^-?\d+$/.test(part)) return `${name} holds a number that is too long.`;
      }
      return null;
    }

    // What is asked about the pasted configuration, or a sentence that says why nothing is.
    function question(gpuCount) {
      const [config, quantization] = [at("config").value, at("quantization").value];
      const weights = at("weightsBytes").value === "" ? null : wholeNumber(at("weightsBytes"));
      if (!config.trim()) return "Paste the text of a config.json above.";
      if (config.length + quantization.length > MOST_CHARACTERS) {
        return "This page reads up to 8 MiB, and no config.json is that large.";
      }
      const wrong = fault("config.json", config) || (quantization.trim() && fault("hf_quant_config.json", quantization));
      if (wrong) return wrong;
      if (!at("weightsBytes").checkValidity()) return "Give the size of the weights as a whole number of bytes.";
      return { config, quantization, weightsBytes: weights, gpuCount };
    }

    // Calls back with the tables of the pasted configuration on that many GPUs: at once, or when they have been read,
    // unless something else has been entered by then.
    let turn = 0;
    function withPasted(gpuCount, tell) {
      const asked = question(gpuCount);
      if (typeof asked === "string") {
        output.replaceChildren(make("p", {}, asked));
        return;
      }
      const known = globalThis.kaitoCatalogPasted.recall(data, asked);
      if (known) {
        tell(known);
        return;
      }
      const mine = turn;
      output.replaceChildren(make("p", { class: "kc-reading" }, "Reading the configuration …"));
      output.setAttribute("aria-busy", "true");
      globalThis.kaitoCatalogPasted.read(data, asked).then((model) => {
        if (mine !== turn || !model) return;
        output.removeAttribute("aria-busy");
        tell(model);
      });
    }

    // The GPUs of which some instance type has so many, the smallest memory first.
    const rented = (gpuCount) => data.gpus
      .filter((gpu) => data.instanceTypes.some((item) => item.gpu === gpu.name && item.gpuCount === gpuCount))
      .sort((a, b) => a.memoryBytes - b.memoryBytes);
    const counts = [...new Set(data.instanceTypes.map((item) => item.gpuCount))]
      .filter((count) => count <= data.mostGPUs && rented(count).length).sort((a, b) => a - b);

    // Until somebody chooses GPUs, a pasted model is shown on the fewest that it fits; then on the smallest of these.
    function place(asked, [gpuCount, ...more], tell) {
      withPasted(gpuCount, (model) => {
        const maxModelLen = ownContext ? asked.maxModelLen : Math.min(asked.maxModelLen, model.maxModelLen || Infinity);
        const here = { ...asked, gpuCount, maxModelLen };
        const on = rented(gpuCount);
        const gpu = on.find((g) => plan(data, model, g, here).fits === "yes");
        if (!gpu && more.length && !model.unknown) place(asked, more, tell);
        else tell(model, gpu || on[on.length - 1], here);
      });
    }

    function update(event) {
      turn += 1;
      output.removeAttribute("aria-busy");
      const changed = event ? event.target.name : "model";
      if (["gpu", "gpuCount"].includes(changed)) ownGpus = true;
      if (changed === "maxModelLen") ownContext = true;
      const model = data.models.find((m) => m.name === at("model").value);
      if (changed === "model") {
        ownContext = false;
        if (model && model.context) at("maxModelLen").value = model.context;
        const on = !ownGpus && start(model);
        if (on) {
          at("gpu").value = on.gpu.name;
          at("gpuCount").value = on.gpuCount;
        }
      }
      const gpu = data.gpus.find((g) => g.name === at("gpu").value);
      pasted.hidden = Boolean(model);
      at("utilization").placeholder = `${gpu.utilization}, as ${data.profile} has it`;
      const [gpuCount, maxModelLen] = [wholeNumber(at("gpuCount")), wholeNumber(at("maxModelLen"))];
      if (gpuCount === null || maxModelLen === null || !at("utilization").checkValidity()) {
        output.replaceChildren(make("p", {}, "Give whole numbers of GPUs and tokens, and a utilization up to 1."));
        return;
      }
      const asked = {
        gpuCount, maxModelLen, cacheDtype: at("cacheDtype").value,
        utilization: at("utilization").value === "" ? null : Number(at("utilization").value),
      };
      if (model || gpuCount > data.mostGPUs) {
        show(model || {}, gpu, asked);
      } else if (ownGpus) {
        withPasted(gpuCount, (read) => show(read, gpu, asked));
      } else {
        place(asked, counts, (read, on, here) => {
          at("gpu").value = on.name;
          at("gpuCount").value = here.gpuCount;
          at("maxModelLen").value = here.maxModelLen;
          at("utilization").placeholder = `${on.utilization}, as ${data.profile} has it`;
          show(read, on, here, "The fewest GPUs that serve it; choose others above.");
        });
      }
    }

    // One GPU as a bar: what is taken, what is left, and where vLLM's budget ends.
    function bar(p) {
      const taken = p.nonTorchBytes + p.activationPeakBytes + p.cudaGraphBytes;
      const parts = [["weights", p.weightsBytes], ["overheads", taken], ["kv", p.kvCacheNeededBytes]];
      const all = parts.reduce((total, [, bytes]) => total + bytes, 0);
      const whole = Math.max(all, p.budgetBytes);
      const strip = make("div", { class: "kc-bar", "aria-hidden": "true" });
      for (const [name, bytes] of parts) {
        const part = make("span", { class: `kc-${name}` });
        part.style.width = `${(100 * bytes) / whole}%`;
        strip.append(part);
      }
      const end = make("span", { class: "kc-end" });
      end.style.left = `${(100 * p.budgetBytes) / whole}%`;
      strip.append(end);
      return strip;
    }

    function account(p, error) {
      const rows = [
        ["vLLM may use", p.budgetBytes, "budget"], ["weights", p.weightsBytes, "weights"],
        ["non-torch", p.nonTorchBytes, "overheads"], ["activation peak", p.activationPeakBytes, "overheads"],
        ["CUDA graphs", p.cudaGraphBytes, "overheads"], ["left for KV cache", p.kvCacheAvailableBytes, null],
        ["one request needs", p.kvCacheNeededBytes, "kv"], ["expected error", error, null],
      ];
      const body = make("tbody");
      for (const [name, bytes, colour] of rows) {
        const swatch = make("span", { class: `kc-swatch ${colour ? `kc-${colour}` : "kc-nothing"}`, "aria-hidden": "true" });
        body.append(make("tr", {}, make("th", { scope: "row" }, swatch, name),
          make("td", { class: "kc-number" }, gib(bytes)), make("td", { class: "kc-number" }, grouped(bytes))));
      }
      const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "On each GPU"),
        make("th", { scope: "col", class: "kc-number" }, "Size"), make("th", { scope: "col", class: "kc-number" }, "Bytes")));
      return make("table", { class: "kc-table kc-account" }, head, body);
    }

    function show(model, gpu, asked, remark = "") {
      const result = plan(data, model, gpu, asked);
      const verdict = make("p", { class: "kc-verdict" }, badge(result.fits), ` on ${asked.gpuCount} × ${gpu.name} at ${grouped(asked.maxModelLen)} tokens`);
      const parts = [verdict];
      if (result.reason) {
        const term = TERMS[result.limitedBy] || result.limitedBy;
        const words = result.fits === "unknown" ? "Not known" : `Limited by ${term}`;
        parts.push(make("p", {}, `${words}: ${result.reason}.`));
      }
      if (remark && result.fits === "yes") parts.push(make("p", {}, remark));
      const legal = Object.entries(model.tensorParallel || {}).filter(([, size]) => typeof size !== "string");
      if (result.limitedBy === "parallelism" && legal.length) {
        parts.push(make("p", {}, `It can be divided over ${legal.map(([count]) => count).join(", ")} GPUs.`));
      }
      if (result.perGPU) {
        const longest = result.kvCache.longestModelLen;
        parts.push(make("p", {}, `Longest context that fits: ${longest ? `${grouped(longest)} tokens` : "none"}. Requests of ${grouped(asked.maxModelLen)} tokens at once: ${result.kvCache.maxConcurrency.toFixed(2)}.`));
        parts.push(bar(result.perGPU));
        parts.push(account(result.perGPU, result.expectedErrorBytes));
      }
      const named = at("model").value;
      const share = asked.utilization === null ? "" : ` --gpu-memory-utilization ${asked.utilization}`;
      const dtype = asked.cacheDtype === "auto" ? "" : ` --kv-cache-dtype ${asked.cacheDtype}`;
      const weights = named || !at("weightsBytes").value ? "" : ` --weights-bytes ${at("weightsBytes").value}`;
      parts.push(
        make("p", {}, named ? "The same on the command line:" : "The same on the command line, in the folder with the pasted files:"),
        make("pre", { tabindex: "0" }, make("code", {},
          `kaito-catalog plan ${named || "."} --gpu '${gpu.name}' --gpu-count ${asked.gpuCount} --max-model-len ${asked.maxModelLen}${dtype}${share}${weights}`)));
      output.replaceChildren(...parts);
    }

    form.querySelector(".kc-paste").addEventListener("click", () => {
      at("model").value = "";
      at("model").dispatchEvent(new Event("input", { bubbles: true }));
      at("config").focus();
    });
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    update();
  }

  function hardware(form, output) {
    const at = (name) => form.elements.namedItem(name);
    gpuOptions(at("gpu"));
    for (const dtype of data.cacheDtypes) at("cacheDtype").append(new Option(dtype, dtype));
    at("gpuCount").max = data.mostGPUs;

    function update() {
      const gpu = data.gpus.find((g) => g.name === at("gpu").value);
      const [gpuCount, least] = [wholeNumber(at("gpuCount")), Number(at("context").value)];
      if (gpuCount === null) {
        output.replaceChildren(make("p", {}, "Give a whole number of GPUs."));
        return;
      }
      const asked = { gpuCount, maxModelLen: data.shortestModelLen, cacheDtype: at("cacheDtype").value };
      const found = data.models
        .map((model) => ({ model, certain: longestCertain(data, model, gpu, asked), result: plan(data, model, gpu, asked) }))
        .map((item) => ({ ...item, longest: item.result.kvCache && item.result.fits !== "no" ? item.result.kvCache.longestModelLen : 0 }));
      const shown = found.filter((item) => item.longest >= Math.max(1, least));
      const body = make("tbody");
      for (const { model, certain, longest } of shown) {
        const fits = certain >= Math.max(1, least) ? "yes" : "tight";
        body.append(make("tr", {},
          make("th", { scope: "row" }, make("a", { href: `../models/${model.name}/` }, model.repoId)),
          make("td", {}, badge(fits)),
          make("td", { class: "kc-number" }, certain ? grouped(certain) : "none"),
          make("td", { class: "kc-number" }, grouped(longest)),
          make("td", { class: "kc-number" }, grouped(model.maxModelLen)),
          make("td", {}, make("a", { href: `../calculator/#${model.name}`, "aria-label": `Calculate ${model.repoId}` }, "calculate"))));
      }
      const heads = ["Model", "Verdict", "Surely fits", "At most", "The model's own limit", ""];
      const head = make("thead", {}, make("tr", {}, ...heads.map((text, i) =>
        text ? make("th", i > 1 ? { scope: "col", class: "kc-number" } : { scope: "col" }, text) : make("td"))));
      const unknown = found.filter((item) => item.result.fits === "unknown").length;
      const said = `${shown.length} of ${data.models.length} models fit on ${gpuCount} × ${gpu.name}` +
        (least ? ` with ${grouped(least)} tokens or more` : "") + (unknown ? `; ${unknown} unknown` : "") + ".";
      const region = make("div", { class: "kc-scroll", role: "region", "aria-label": "Models that fit", tabindex: "0" },
        make("table", { class: "kc-table" }, head, body));
      form.querySelector(".kc-count").textContent = said;
      output.replaceChildren(...(shown.length ? [region] : []));
    }

    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    update();
  }

  const forms = { ".kc-calculator": calculator, ".kc-hardware": hardware };
  for (const [selector, start] of Object.entries(forms)) {
    const form = document.querySelector(selector);
    if (form) start(form, document.querySelector(".kc-answer"));
  }
})();
