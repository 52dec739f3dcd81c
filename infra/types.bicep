@export()
@description('A deployment of an image model, to be made in the new account.')
type imageDeployment = {
  @description('Name of the deployment.')
  @minLength(2)
  @maxLength(64)
  name: string

  @description('Who made the model: OpenAI, "Black Forest Labs", Microsoft.')
  modelFormat: string

  @description('The model, such as gpt-image-2.')
  modelName: string

  @description('Left out: the default version of the model.')
  modelVersion: string?

  @description('Such as GlobalStandard.')
  skuName: string

  @description('Quota: for image models, what the region grants a minute.')
  @minValue(1)
  capacity: int
}

// apiKeySetting of the setting IMAGE_DEPLOYMENTS is left out: this template gives the app an identity, and no keys.
@export()
@description('A deployment that the app may use: one entry of the setting IMAGE_DEPLOYMENTS.')
type appDeployment = {
  @description('What callers write as "model".')
  name: string
  api: 'operations' | 'images' | 'flux' | 'mai'
  @description('Left out: AZURE_OPENAI_ENDPOINT.')
  endpoint: string?
  @description('Left out: the same as name.')
  deployment: string?
  @description('Left out: AZURE_OPENAI_API_VERSION.')
  apiVersion: string?
  @description('The path of a FLUX model; left out: by the table of models.')
  modelPath: string?
}
